#!/bin/sh
# The same with curl: multidiff serve digits masked kathleen, then sh examples/service/client.sh
set -e
url=${1:-http://127.0.0.1:8000}
json='Content-Type: application/json'
curl -fsS "$url/v1/images" -H "$json" -d '{"prompt": "a handwritten seven", "seed": 1}' -o seven.png
curl -fsS "$url/v1/speech?chunked=true" -H "$json" -d '{"text": "Good morning."}' -o morning.wav
# An image that is sent: its lower half is painted over.
python3 -c '
from PIL import Image
mask = Image.new("L", (28, 28)); mask.paste(255, (0, 14, 28, 28)); mask.save("mask.png")'
printf '{"prompt": "two", "init_image": "%s", "mask_image": "%s"}' \
    "$(base64 < seven.png | tr -d '\n')" "$(base64 < mask.png | tr -d '\n')" |
    curl -fsS "$url/v1/images" -H "$json" -d @- -o two.png
# A text token by token, as server-sent events.
curl -fsSN "$url/v1/texts" -H "$json" -H 'Accept: text/event-stream' \
    -d '{"infill": "the eagle is a [MASK] [MASK] .", "seed": 1}'

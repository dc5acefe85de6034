#!/bin/sh
# usage: docker/verify.sh    runs the steps of the Dockerfile in a temporary folder, without Docker
# It copies what .dockerignore lets through, installs it, serves the models of the Dockerfile and
# asks for its health, the page and an answer of each. TORCH_BACKEND= takes torch from the default index.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
mkdir -p "$work/source/docker"
for name in multidiff pyproject.toml constraints.txt README.md LICENSE NOTICE LICENSES; do
    cp -r "$root/$name" "$work/source/"
done
cp "$root/docker/install.sh" "$work/source/docker/"
export TORCH_BACKEND="${TORCH_BACKEND-cpu}" EXTRAS="${EXTRAS:-serve,tts}"
unset PYTHONPATH
sh "$work/source/docker/install.sh" "$work/source" "$work/multidiff"
rm -rf "$work/source"
packages=$(echo "$work"/multidiff/lib/python3*/site-packages)
all=$(du -sk "$work/multidiff" | cut -f1)
cuda=$(cd "$packages" && du -sk nvidia* triton* cuda* *cusparselt* torch/lib/libtorch_cuda* \
    torch/lib/libc10_cuda* torch/lib/libcaffe2_nvrtc* torch/lib/libtorch_nvshmem* 2>/dev/null |
    awk '{ sum += $1 } END { print sum + 0 }')
echo "$((all / 1024)) MiB in the environment, $(((all - cuda) / 1024)) without what is for CUDA"
du -sm "$packages"/* | sort -rn | head -20 | awk '{ n = split($2, part, "/"); printf "%s %s, ", part[n], $1 }'
echo
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export PATH="$work/multidiff/bin:$PATH" HF_HUB_OFFLINE=1 MULTIDIFF_TOKEN=verify HOME="$work"
models=$(sed -n 's/^CMD \[\(.*\)\]$/\1/p' "$root/Dockerfile" | tr -d '",')
cd "$work"
# shellcheck disable=SC2086
multidiff serve --host 0.0.0.0 --page --port "$port" $models &
server=$!
python - "$port" <<'PYTHON'
import json, sys, time
from urllib.request import Request, urlopen

base, token = f"http://127.0.0.1:{sys.argv[1]}", {"Authorization": "Bearer verify"}
for _ in range(240):
    try:
        urlopen(base + "/health", timeout=4)
        break
    except OSError:  # it listens while its models are loaded, and does not answer yet
        time.sleep(0.5)
print("health:", urlopen(base + "/health", timeout=4).read().decode())
headers = {**token, "Content-Type": "application/json"}
for route, fields, start in (
    ("images", {"prompt": "a handwritten seven"}, b"\x89PNG"),
    ("speech", {"text": "Good morning."}, b"RIFF"),
    ("edits", {"source": "the eagle is a cheap cheap pub ."}, b"{"),
    ("texts", {"infill": "the eagle is a [MASK] ."}, b"{"),
    ("texts/restaurant", {"length": 12}, b"{"),
):
    request = Request(f"{base}/v1/{route}", json.dumps(fields).encode(), headers)
    answer = urlopen(request, timeout=120).read()
    assert answer.startswith(start), answer[:80]
    print(f"{route}: {len(answer)} bytes")
page = urlopen(Request(base + "/page/", headers=token), timeout=60).read()
assert b"<html" in page, page[:80]
print(f"page: {len(page)} bytes")
PYTHON
kill -TERM "$server"
wait "$server"
server=
echo "ended by SIGTERM with status 0"

"""Ask a running service for an image, a text token by token, and speech while it is made.

multidiff serve digits masked kathleen
python examples/service/client.py --url http://127.0.0.1:8000 --out answers
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import httpx


def image(client: httpx.Client, prompt: str, seed: int) -> bytes:
    """Return a PNG; a wrong request raises an error with the service's line."""
    answer = client.post("/v1/images", json={"prompt": prompt, "seed": seed})
    if answer.is_error:
        raise ValueError(answer.json()["detail"])
    return answer.content


def events(client: httpx.Client, path: str, request: dict) -> Iterator[tuple[str, dict]]:
    """Yield the name and the data of each event of a request."""
    accept = {"accept": "text/event-stream"}
    with client.stream("POST", path, json=request, headers=accept) as answer:
        name = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))


def speech(client: httpx.Client, text: str, path: Path) -> None:
    """Write speech into a file while it arrives, as a player could."""
    request = {"text": text, "seed": 0}
    with (
        client.stream("POST", "/v1/speech?chunked=true", json=request) as answer,
        path.open("wb") as file,
    ):
        for part in answer.iter_bytes():
            file.write(part)


def ask(client: httpx.Client, out: Path) -> list[str]:
    """Write an image and a sound into a folder, and return a text after each of its steps."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "seven.png").write_bytes(image(client, "a handwritten seven", seed=1))
    speech(client, "Good morning.", out / "morning.wav")
    request = {"infill": "the eagle is a [MASK] [MASK] .", "seed": 1}
    return [data["text"] for _, data in events(client, "/v1/texts", request) if "text" in data]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--token", default="")
    parser.add_argument("--out", type=Path, default=Path("answers"))
    given = parser.parse_args()
    headers = {"authorization": f"Bearer {given.token}"} if given.token else {}
    with httpx.Client(base_url=given.url, headers=headers, timeout=300) as service:
        print(*ask(service, given.out), sep="\n")

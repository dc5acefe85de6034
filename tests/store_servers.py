"""Small stand-ins for Google Cloud Storage and for the Hugging Face hub, over a folder.

Buckets and data sets of any name hold it; those that are called by a status, such as 403, answer
with it. They are a program of their own, because pyarrow holds the lock of the interpreter while it
waits for Google's answers.
"""

import json
import subprocess
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

CHANGED = "2026-01-02T03:04:05Z"


class _Handler(BaseHTTPRequestHandler):
    """Answers of both: no address of the one is one of the other."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())

    def answer(self, body=""):
        parts = urlsplit(self.path)
        query = {key: value[0] for key, value in parse_qs(parts.query).items()}
        steps = [unquote(step) for step in parts.path.strip("/").split("/")]
        refused = next((step for step in steps if step in ("401", "403", "503")), None)
        if refused:
            self.reply(int(refused), b"{}")
        elif steps[:3] == ["storage", "v1", "b"]:
            self.google(steps[3], steps[5:], query)
        elif steps[0] == "api":
            self.hub(steps[4:], query, body)
        else:  # OWNER/NAME/resolve/main/PATH
            self.content(self.server.folder.joinpath(*steps[5:]))

    def google(self, bucket, name, query):
        folder = self.server.folder
        if not name:
            there = (path for path in sorted(folder.rglob("*")) if path.is_file())
            found = [described(path, folder, bucket) for path in there]
            wanted = [one for one in found if one["name"].startswith(query.get("prefix", ""))]
            self.reply(200, json.dumps({"kind": "storage#objects", "items": wanted}).encode())
        elif not (folder / name[0]).is_file():
            self.reply(404, b"{}")
        elif query.get("alt") == "media":
            self.content(folder / name[0])
        else:
            self.reply(200, json.dumps(described(folder / name[0], folder, bucket)).encode())

    def hub(self, steps, query, body):
        folder = self.server.folder
        if not steps:
            answer = {"id": "owner/name", "sha": "0" * 40, "siblings": []}
        elif steps[0] == "tree":
            place = folder.joinpath(*steps[2:])
            if not place.is_dir():
                return self.reply(404, b"{}", "EntryNotFound")
            answer = [entry(path, folder) for path in sorted(place.iterdir())]
        else:  # paths-info
            names = json.loads(body)["paths"] if body[:1] == "{" else parse_qs(body)["paths"]
            answer = [entry(folder / name, folder) for name in names if (folder / name).exists()]
        return self.reply(200, json.dumps(answer).encode())

    def content(self, path):
        whole = path.read_bytes()
        first, _, last = self.headers.get("Range", "bytes=0-").partition("=")[2].partition("-")
        part = whole[int(first) : int(last or len(whole)) + 1]
        where = f"bytes {first}-{int(first) + len(part) - 1}/{len(whole)}"
        self.reply(206, part, **{"Content-Range": where})

    def reply(self, status, body, code="", **headers):
        self.send_response(status)
        headers |= {"Content-Length": len(body), "X-Error-Code": code}
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format, *arguments):
        pass


def described(path, folder, bucket):
    """Return the metadata of an object as Google's server has them."""
    return {
        "kind": "storage#object", "bucket": bucket, "name": path.relative_to(folder).as_posix(),
        "size": str(path.stat().st_size), "generation": "1", "metageneration": "1",
        "timeCreated": CHANGED, "updated": CHANGED,
    }  # fmt: skip


def entry(path, folder):
    """Return what the hub says of a file or folder."""
    kind = "directory" if path.is_dir() else "file"
    size = 0 if path.is_dir() else path.stat().st_size
    return {
        "type": kind,
        "oid": "0" * 40,
        "size": size,
        "path": path.relative_to(folder).as_posix(),
    }


@contextmanager
def store_server(folder):
    """Serve a folder, and give the address."""
    command = [sys.executable, __file__, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads, server.folder = True, Path(sys.argv[1])
    print(server.server_address[1], flush=True)
    server.serve_forever()

"""A small S3 server over a folder, whose subfolders are the buckets: what reading needs, counted.

For tests and measurements: it counts requests and bytes, can be stopped and started again on its
port, and refuses requests without credentials. It does not check signatures.
"""

from __future__ import annotations

import sys
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

COUNTS = "/_counts"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def do_HEAD(self) -> None:
        self._serve(False)

    def do_GET(self) -> None:
        self._serve(True)

    def _serve(self, has_body: bool) -> None:
        owner, parts = self.server.owner, urlsplit(self.path)
        if owner.is_away:  # on a connection that was kept open
            self.close_connection = True
            return
        if parts.path == COUNTS:
            self._reply(200, f"{owner.requests} {owner.sent}".encode(), has_body)
            return
        owner.requests += 1
        if owner.private and "Authorization" not in self.headers:
            self._error(403, "AccessDenied", has_body)
            return
        query, path = parse_qs(parts.query), owner.folder / unquote(parts.path).strip("/")
        if "list-type" in query:
            self._reply(200, owner.listing(path, query.get("prefix", [""])[0]).encode(), has_body)
        elif path.is_dir() and path.parent == owner.folder:
            self._reply(200, b"", has_body)
        elif path.is_file():
            self._object(path, has_body)
        else:
            self._error(404, "NoSuchKey", has_body)

    def _object(self, path: Path, has_body: bool) -> None:
        size, asked = path.stat().st_size, self.headers.get("Range", "")
        first, last = 0, size - 1
        if asked:
            begin, end = asked.removeprefix("bytes=").split("-")
            first = int(begin) if begin else max(size - int(end), 0)
            last = min(int(end), size - 1) if begin and end else size - 1
            if first > last:
                self._error(416, "InvalidRange", has_body)
                return
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Last-Modified", formatdate(path.stat().st_mtime, usegmt=True))
        self.send_header("ETag", f'"{path.stat().st_mtime_ns:x}"')
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        if has_body:
            with path.open("rb") as file:
                file.seek(first)
                self.wfile.write(file.read(last - first + 1))
            self.server.owner.sent += last - first + 1

    def _error(self, status: int, code: str, has_body: bool) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
        self._reply(status, text.encode(), has_body)

    def _reply(self, status: int, body: bytes, has_body: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if has_body:
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing."""


class S3Server:
    """The server, in a thread; use it as a context.

    Args:
        folder: folder of the buckets.
        private: whether to refuse requests without credentials.
        port: its port; any free one by default.

    Attributes:
        requests: number of requests.
        sent: number of bytes of objects that were sent.
    """

    def __init__(self, folder: Path, private: bool = False, port: int = 0):
        self.folder, self.private, self.port = folder, private, port
        self.requests = self.sent = 0
        self.is_away = True
        self._server: ThreadingHTTPServer | None = None

    @property
    def endpoint(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Begin to answer."""
        self.is_away = False
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), _Handler)
        self._server.owner = self  # type: ignore[attr-defined]
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections."""
        assert self._server is not None
        self.is_away = True
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> S3Server:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def listing(self, bucket: Path, prefix: str) -> str:
        """Return the objects of a bucket below a prefix, as XML."""
        names = (path.relative_to(bucket).as_posix() for path in bucket.rglob("*"))
        found = sorted(name for name in names if name.startswith(prefix))
        entries = []
        for name in found:
            state = (bucket / name).stat()
            if (bucket / name).is_file():
                changed = int(state.st_mtime)
                entries.append(
                    f"<Contents><Key>{escape(name)}</Key><Size>{state.st_size}</Size>"
                    f"<ETag>{state.st_mtime_ns:x}</ETag>"
                    f"<LastModified>{_iso(changed)}</LastModified></Contents>"
                )
        return (
            "<?xml version='1.0'?><ListBucketResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>"
            f"<Name>{escape(bucket.name)}</Name><Prefix>{escape(prefix)}</Prefix>"
            f"<KeyCount>{len(entries)}</KeyCount><MaxKeys>1000</MaxKeys>"
            f"<IsTruncated>false</IsTruncated>{''.join(entries)}</ListBucketResult>"
        )


def _iso(second: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


if __name__ == "__main__":
    server = S3Server(Path(sys.argv[1]), port=int(sys.argv[2]))
    server.start()
    print(server.port, flush=True)
    threading.Event().wait()

"""Checks before every route: who asks, from which page, and how much is sent."""

from __future__ import annotations

import asyncio
import hmac
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, RedirectResponse, Response

from multidiff.serve.settings import ServerSettings

COOKIE = "multidiff_token"
# Asked by supervisors, without a token.
OPEN = ("/health", "/ready")
# Bodies that are held at once, as a multiple of the largest one.
BODIES = 8


class Refusal(Exception):
    """A request that goes no further.

    Attributes:
        response: the answer to it.
    """

    def __init__(self, status: int, detail: str, **headers: str):
        super().__init__(detail)
        self.response = JSONResponse({"detail": detail}, status, headers)


class Guard:
    """Middleware that checks host, origin, token and body of each request.

    Args:
        app: the application behind it.
        settings: limits.
    """

    def __init__(self, app: Any, settings: ServerSettings):
        self.app, self.settings = app, settings
        self._hosts = {one.lower() for one in settings.hosts}
        self._held = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass on a request, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        headers, held = Headers(scope=scope), [0]
        try:
            self._check_host(headers)
            self._check_origin(headers)
            response = self._check_token(scope, headers)
            if response is None and scope["type"] == "http":
                receive = await self._with_body(headers, receive, held)
        except Refusal as refusal:
            response = refusal.response
        try:
            if response is None:
                await self.app(scope, receive, send)
            elif scope["type"] == "http":
                await response(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
        finally:
            self._held -= held[0]

    def _check_host(self, headers: Headers) -> None:
        """Refuse names that are not ours: a page of another site may resolve to this machine."""
        host = _parts_of(f"//{headers.get('host', '')}").hostname  # in lower case
        if self._hosts and host not in self._hosts:
            raise Refusal(403, "this service has another name; ask it by that")

    def _check_origin(self, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is not None and _parts_of(origin).netloc != headers.get("host"):
            raise Refusal(403, "pages of other origins may not use this service")
        if origin is None and headers.get("sec-fetch-site") == "cross-site":
            raise Refusal(403, "pages of other origins may not use this service")

    def _check_token(self, scope: Any, headers: Headers) -> Response | None:
        """Return a redirect if the token is in the address: it becomes a cookie, for browsers."""
        wanted = self.settings.token
        if wanted is None or scope["path"] in OPEN:
            return None
        kind, _, given = headers.get("authorization", "").partition(" ")
        # Those of other services on this machine come too, whatever their form.
        cookies = cookie_parser(headers.get("cookie", ""))
        if kind.lower() == "bearer" and _equal(given, wanted):
            return None
        if COOKIE in cookies and _equal(cookies[COOKIE], wanted):
            return None
        query = parse_qsl(scope.get("query_string", b"").decode("latin-1"))
        if scope["type"] == "http" and _equal(dict(query).get("token", ""), wanted):
            rest = urlencode([pair for pair in query if pair[0] != "token"])
            response = RedirectResponse(scope["path"] + (f"?{rest}" if rest else ""), 303)
            response.set_cookie(COOKIE, wanted, httponly=True, samesite="strict")
            return response
        hint = "send the header Authorization: Bearer TOKEN"
        raise Refusal(
            401, f"this service needs its token; {hint}", **{"WWW-Authenticate": "Bearer"}
        )

    async def _with_body(self, headers: Headers, receive: Any, held: list[int]) -> Any:
        """Return a source of the request's messages, its body first, which has arrived whole."""
        most = self.settings.max_bytes
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > most:
            raise Refusal(413, f"the body has {length} bytes; {most:,} at most here")
        try:
            async with asyncio.timeout(self.settings.body_seconds):
                body = await self._read(receive, held)
        except TimeoutError as error:
            raise Refusal(408, "the body did not arrive in time; send it faster") from error
        first: list[Any] = [{"type": "http.request", "body": body, "more_body": False}]

        async def messages() -> Any:
            return first.pop() if first else await receive()

        return messages

    async def _read(self, receive: Any, held: list[int]) -> bytes:
        parts, most = [], self.settings.max_bytes
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise Refusal(400, "the body ended early")
            part = message.get("body", b"")
            held[0] += len(part)
            self._held += len(part)
            parts.append(part)
            if held[0] > most:
                raise Refusal(413, f"the body has more than {most:,} bytes, the limit here")
            if self._held > BODIES * most:
                raise Refusal(503, "too many uploads at once", **{"Retry-After": "1"})
            if not message.get("more_body"):
                return b"".join(parts)


def _parts_of(address: str) -> SplitResult:
    """Return the parts of an address; all are empty if it cannot be read."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def _equal(given: str, wanted: str) -> bool:
    """Return whether two tokens are equal, in a time that does not depend on where they differ."""
    return hmac.compare_digest(given.encode(), wanted.encode())

"""Object stores: ``s3://``, ``gs://`` and ``hf://``, opened, waited for, and their errors named."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from multidiff.utils.errors import InputError
from multidiff.utils.files import resolve_path
from multidiff.utils.packages import needs
from multidiff.utils.readers import AGAIN, PASSING, check_url, is_remote, reason_of

logger = logging.getLogger(__name__)

T = TypeVar("T")
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
CONNECT_SECONDS, REQUEST_SECONDS = 5, 30
GOOGLE_SECONDS = 3  # its client's own retries; patiently tries again
FIRST_WAIT, LONGEST_WAIT = 0.25, 8.0
# What servers that are away, overloaded or restarting cause, in the words of the libraries.
PASSES = re.compile(
    r"NETWORK_CONNECTION|SLOW_DOWN|THROTTL|INTERNAL_FAILURE|SERVICE_UNAVAILABLE|REQUEST_TIME|"
    r"HTTP status (429|5\d\d)|curlCode|UNAVAILABLE|DEADLINE|ConnectError|ConnectionError|"
    r"[Tt]imed? ?out|Connection re|Server disconnected|unexpected end of stream|Unexpected EOF|"
    r"Server error '5\d\d|429 Too Many"
)
# Google's client says UNAVAILABLE where it found no credentials.
REFUSED = re.compile(
    r"ACCESS_DENIED|HTTP status 40[13]|PERMISSION_DENIED|UNAUTHENTICATED|OAuth2 access token|"
    r"40[13] (Client|Unauthorized|Forbidden)"
)
CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login",
    "hf": "set HF_TOKEN, or run hf auth login",
}
MISSING = re.compile(r"NO_SUCH|HTTP status 404|NOT_FOUND|does not exist|404 Client")


@dataclass(frozen=True)
class ObjectStore:
    """Connection to an object store; what is not given comes from the environment.

    Attributes:
        endpoint: address of an S3 or GCS server that is not Amazon's or Google's, such as
            ``http://127.0.0.1:9000``; by default ``AWS_ENDPOINT_URL`` for S3.
        region: region of an S3 bucket; by default ``AWS_REGION``, else asked of the server.
        anonymous: whether to read a public bucket without credentials. Otherwise these come from
            where the libraries look for them, such as ``AWS_ACCESS_KEY_ID``.
        patience_s: seconds that a server may be away before reading ends in an error.
    """

    endpoint: str | None = None
    region: str | None = None
    anonymous: bool = False
    patience_s: float = 120.0

    def open(self, url: str) -> tuple[Any, str]:
        """Return the file system (``pyarrow.fs``) of a URL or local path, and the path in it.

        Raises:
            InputError: if the URL names no bucket, or the store cannot be reached.
        """
        if not is_remote(url):
            with needs("pyarrow", "row groups"):
                import pyarrow.fs
            return pyarrow.fs.LocalFileSystem(), os.path.abspath(resolve_path(url))
        check_url(url)
        with needs("pyarrow", url):
            import pyarrow.fs
        scheme, path = url.split("://", 1)
        open_store = {"s3": self._s3, "gs": self._gcs, "hf": self._hub}[scheme]
        return self.patiently(lambda: open_store(path), url), path.rstrip("/")

    def patiently(self, action: Callable[[], T], name: str, problem: str = "cannot be read") -> T:
        """Return what an action returns, tried again while its server is away.

        Args:
            action: function that reads from a store.
            name: name of what it reads, for messages.
            problem: meaning of its failure.

        Raises:
            InputError: if it fails otherwise, or for longer than ``patience_s``.
        """
        began, wait = time.monotonic(), FIRST_WAIT
        while True:
            try:
                return action()
            except PASSING:
                raise
            except Exception as error:
                reason, gone = _short(reason_of(error)), time.monotonic() - began
                words = f"{type(error).__name__}: {error}"
                if REFUSED.search(words) or not PASSES.search(words):
                    raise InputError(_fault(name, problem, words, reason)) from error
                if gone + wait > self.patience_s:
                    raise InputError(
                        f"{name}: its server was away for {gone:.0f} s ({reason}); check the "
                        "address and the network, then start again with --resume"
                    ) from error
                if wait == FIRST_WAIT:
                    logger.warning("%s: its server is away (%s); waiting", name, reason)
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    def _s3(self, path: str) -> Any:
        from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

        endpoint = self.endpoint or _first(ENDPOINTS)
        region = self.region or _first(REGIONS)
        if region is None and endpoint is None:
            region = resolve_s3_region(path.split("/", 1)[0])
        return S3FileSystem(
            endpoint_override=endpoint,
            region=region,
            anonymous=self.anonymous,
            connect_timeout=CONNECT_SECONDS,
            request_timeout=REQUEST_SECONDS,
            retry_strategy=AwsStandardS3RetryStrategy(max_attempts=1),  # patiently tries again
        )

    def _gcs(self, path: str) -> Any:
        from pyarrow.fs import GcsFileSystem

        scheme, _, address = (self.endpoint or "").rpartition("://")
        return GcsFileSystem(
            anonymous=self.anonymous,
            endpoint_override=address or None,
            scheme=scheme or None,
            retry_time_limit=timedelta(seconds=GOOGLE_SECONDS),
        )

    def _hub(self, path: str) -> Any:
        from pyarrow.fs import FSSpecHandler, PyFileSystem

        with needs("huggingface_hub", f"hf://{path}"):
            from huggingface_hub import HfFileSystem
        token = False if self.anonymous else None  # None is what the library finds
        return PyFileSystem(FSSpecHandler(HfFileSystem(endpoint=self.endpoint, token=token)))


def _first(names: tuple[str, ...]) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def _short(reason: str) -> str:
    """Return what Google's client says, without its internals."""
    said = re.search(
        r"google::cloud::Status\((\w+: .*?)(?: error_info=|\. The request was not|$)", reason
    )
    return said[1] if said else reason


def _fault(name: str, problem: str, words: str, reason: str) -> str:
    if REFUSED.search(words):
        how = CREDENTIALS.get(name.partition("://")[0], "allow reading it")
        return f"{name}: access denied ({reason}); {how}, or anonymous: true for public data"
    if MISSING.search(words):
        return f"{name}: no such file or folder ({reason}); check the path"
    return f"{name}: {problem} ({reason}); {AGAIN}"

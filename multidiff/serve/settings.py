"""Limits of a service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class ServerSettings:
    """Who may ask, and how much.

    Attributes:
        loras: files of LoRAs that requests may name, by name.
        token: what requests must carry, as ``Authorization: Bearer TOKEN``; None for all.
        hosts: names that requests may have in their header ``Host``, against DNS rebinding;
            empty for any.
        queue: number of requests that may wait; more are answered 503.
        batch: largest number of requests that one network evaluation serves.
        time_limit_seconds: time that a request may take once it runs.
        max_bytes: size of a request's body.
        body_seconds: time in which a body must have arrived.
        max_pixels: pixels of an image that is sent or asked for.
        max_seconds: length of a sound that is sent.
        max_characters: length of a text.
    """

    loras: Mapping[str, Path] = field(default_factory=dict)
    token: str | None = None
    hosts: tuple[str, ...] = LOOPBACK
    queue: int = 64
    batch: int = 16
    time_limit_seconds: float = 300.0
    max_bytes: int = 16 << 20
    body_seconds: float = 30.0
    max_pixels: int = 4 << 20
    max_seconds: float = 120.0
    max_characters: int = 5000

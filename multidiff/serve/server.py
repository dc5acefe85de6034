"""The process: its socket, its models, and its end."""

from __future__ import annotations

import signal
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn

from multidiff.models.hub import split_revision
from multidiff.models.loading import check_model_name, load
from multidiff.serve.app import create_app
from multidiff.serve.settings import LOOPBACK, ServerSettings
from multidiff.utils.errors import InputError
from multidiff.utils.files import REASONS

# Connections beside those of requests that wait: health checks, metrics, the page.
MORE_CONNECTIONS = 64


def checked_settings(settings: ServerSettings, host: str, names: Sequence[str]) -> ServerSettings:
    """Return settings that are safe for an address.

    Args:
        settings: settings.
        host: address to listen on.
        names: further names that requests may ask it by.

    Raises:
        InputError: if others can reach it and there is no token.
    """
    if host in LOOPBACK:
        return replace(settings, hosts=(*LOOPBACK, *names))
    if not settings.token:
        raise InputError(
            f"--host {host}: other machines can reach it; set --token, or MULTIDIFF_TOKEN"
        )
    return replace(settings, hosts=(*LOOPBACK, host, *names) if names else ())


def names_of(models: Sequence[str]) -> dict[str, str]:
    """Return models by their names in paths: the last part of what names each.

    Raises:
        InputError: if two have one name, or there is no model of a name.
    """
    found: dict[str, str] = {}
    for model in models:
        check_model_name(model)
        on_hub = split_revision(model)[0].rpartition("/")[2]
        name = Path(model).resolve().name if Path(model).exists() else on_hub
        if name in found:
            raise InputError(f"{model}: {found[name]} has the name {name} too; rename a folder")
        found[name] = model
    return found


def loras_of(words: Sequence[str]) -> dict[str, Path]:
    """Return LoRAs by the names that requests use.

    Raises:
        InputError: if a word is no ``NAME=FILE``, there is no such file, or two have one name.
    """
    found: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or not name or not Path(path).is_file():
            raise InputError(f"--lora {word}: write NAME=FILE, with a file that exists")
        if name in found:
            raise InputError(f"--lora {word}: {found[name]} has the name {name} too; change one")
        found[name] = Path(path)
    return found


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that is bound, before models are loaded.

    Raises:
        InputError: if the port is in use, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen(128)  # of two processes that bind at once, the second fails here
    except OSError as error:
        found.close()
        reason = REASONS.get(error.errno or 0, error.strerror or str(error)).lower()
        raise InputError(
            f"--host {host} --port {port}: {reason}; choose another port, 0 for any"
        ) from error
    return found


def serve(app: Any, bound: socket.socket, settings: ServerSettings) -> None:
    """Run an application until SIGTERM or Ctrl-C, and finish the requests that it has.

    Args:
        app: the application.
        bound: socket to listen on.
        settings: limits.
    """
    models = len(app.state.service.models)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        limit_concurrency=models * (settings.queue + settings.batch) + MORE_CONNECTIONS,
        server_header=False,
        timeout_keep_alive=5,
        h11_max_incomplete_event_size=1 << 16,
    )
    # uvicorn raises the signal again when all is done; the status is then 0, not the signal's.
    before = {one: signal.signal(one, lambda *_: None) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        uvicorn.Server(config).run(sockets=[bound])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def loaded(models: dict[str, str], device: str) -> dict[str, Any]:
    """Return models by name, each loaded once, with what it needs."""
    found = {name: load(model, device) for name, model in models.items()}
    for model in found.values():
        if type(model).__name__ == "AcousticModel":
            from multidiff.audio.tts.front_end import FrontEnd  # a heavy library, if it is needed

            model.loaded_vocoder()
            for language in {*model.languages.values()}:
                FrontEnd(language).preload()
    return found


__all__ = ["checked_settings", "create_app", "listening", "loaded", "names_of", "serve"]

"""``multidiff serve``: models behind HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from multidiff.cli.arguments import Device
from multidiff.cli.parsing import say
from multidiff.utils.devices import checked_device
from multidiff.utils.packages import SERVE_EXTRA, needs
from multidiff.utils.report import Report


def serve(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Shipped models, folders, or hub ids.")
    ],
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="port; 0 takes a free one")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(envvar="MULTIDIFF_TOKEN", help="token that requests must carry"),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="further name of this machine; may be repeated"),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="LoRA that requests may name; may be repeated"),
    ] = None,
    queue: Annotated[int, typer.Option(min=1, max=10_000, help="requests that may wait")] = 64,
    batch: Annotated[
        int, typer.Option(min=1, max=256, help="most requests of one network evaluation")
    ] = 16,
    time_limit: Annotated[
        float, typer.Option(min=0.1, help="seconds that a request may take once it runs")
    ] = 300.0,
    page: Annotated[bool, typer.Option("--page", help="add a page for browsers at /page")] = False,
    device: Device = "cpu",
) -> None:
    """Answer requests to models over HTTP, on this machine alone unless --host says otherwise.

    The paths and their options are listed at /docs.
    """
    with needs("fastapi", "multidiff serve", SERVE_EXTRA):
        import fastapi  # noqa: F401
    with needs("uvicorn", "multidiff serve", SERVE_EXTRA):
        import uvicorn  # noqa: F401
    if page:
        with needs("gradio", "multidiff serve --page", SERVE_EXTRA):
            import gradio  # noqa: F401
    from multidiff.serve import server
    from multidiff.serve.settings import ServerSettings

    settings = ServerSettings(
        loras=server.loras_of(lora or ()),
        token=token or None,
        queue=queue,
        batch=batch,
        time_limit_seconds=time_limit,
    )
    settings = server.checked_settings(settings, host, allow_host or ())
    named = server.names_of(models)
    bound = server.listening(host, port)
    with bound:
        app = server.create_app(server.loaded(named, checked_device(device)), settings)
        if page:
            from multidiff.serve.page import mount_page

            mount_page(app)
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{bound.getsockname()[1]}"
        listed = f", a page at {url}/page" if page else ""
        say(Report([f"{', '.join(named)}: at {url}, paths at {url}/docs{listed}"]))
        server.serve(app, bound, settings)

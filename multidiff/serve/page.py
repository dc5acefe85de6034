"""A page for browsers: a tab for each family of models that is served.

It is built on gradio and loads nothing from elsewhere. What is done in it becomes requests to the
:class:`~multidiff.serve.service.Service`, in the same queues as those over HTTP.
"""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI
from starlette.responses import RedirectResponse

from multidiff.serve.service import Service
from multidiff.utils.packages import needs

PATH = "/page"
SERVE_EXTRA = 'pip install "multidiff[serve]"'
# The browser refuses whatever is not from this server.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'self'"
)


def mount_page(app: FastAPI, path: str = PATH) -> FastAPI:
    """Add the page to an application of :func:`~multidiff.serve.app.create_app`.

    Args:
        app: the application.
        path: its path.

    Raises:
        PackageError: if gradio is missing.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    with needs("gradio", "the page", SERVE_EXTRA):
        import gradio as gr  # takes seconds to import
    service: Service = app.state.service
    local = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    gr.mount_gradio_app(
        app,
        page_of(service),
        path,
        ssr_mode=False,
        show_error=True,
        footer_links=[],
        max_file_size=service.settings.max_bytes,
        theme=gr.themes.Default(**local),  # type: ignore[arg-type]
    )
    app.add_middleware(FromHere, path=path)

    @app.get("/", include_in_schema=False)
    async def begin() -> RedirectResponse:
        return RedirectResponse(path + "/")

    return app


def page_of(service: Service) -> Any:
    """Return the page of a service, as gradio's ``Blocks``."""
    import gradio as gr

    from multidiff.serve import media_tabs, text_tabs

    drawing = ("images", "image-tokens")
    tabs = {
        "Speak": (("speech",), media_tabs.speak),
        "Draw": (drawing, media_tabs.draw),
        "Inpaint": (drawing, media_tabs.inpaint),
        "Edit": (("edits",), text_tabs.edit),
        "Infill": (("texts",), text_tabs.infill),
    }
    # gradio writes what it shows into files; an hour later they are removed.
    kept = (600, 3600)
    with gr.Blocks(title="multidiff", analytics_enabled=False, delete_cache=kept) as blocks:
        gr.Markdown("# multidiff")
        for title, (routes, build) in tabs.items():
            models = [one for one in service.models.values() if one.family.route in routes]
            if models:
                with gr.Tab(title):
                    build(service, models)
        for one in service.models.values():
            if one.family.route == "joint":
                with gr.Tab(one.name):
                    media_tabs.joint(service, one)
    blocks.queue(default_concurrency_limit=service.settings.batch)
    return blocks


class FromHere:
    """Middleware by which browsers load nothing for the page but from this server.

    Args:
        app: the application behind it.
        path: path of the page.
    """

    def __init__(self, app: Any, path: str):
        self.app, self.path = app, path

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass on a request, and add the policy to its answer."""
        if scope["type"] != "http" or not scope["path"].startswith(self.path):
            return await self.app(scope, receive, send)

        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", POLICY.encode())
                message = {**message, "headers": [*message["headers"], policy]}
            await send(message)

        return await self.app(scope, receive, with_policy)

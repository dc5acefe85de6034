"""The page /docs: every path with its request, from the OpenAPI description, without scripts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
code { background: #8882; padding: .1em .3em }
td, th { text-align: left; padding: .15em .8em .15em 0; vertical-align: top }
h2 { margin-top: 2rem; font-size: 1.1rem }
:root { color-scheme: light dark }
"""


def reference_page(description: Mapping[str, Any]) -> str:
    """Return the page.

    Args:
        description: the application's OpenAPI description.
    """
    info = description["info"]
    parts = [
        f"<!doctype html><meta charset=utf-8><title>{escape(info['title'])}</title>",
        f"<style>{STYLE}</style><h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        "<p>The same as JSON: <a href=openapi.json>openapi.json</a>.</p>",
    ]
    for path, methods in description["paths"].items():
        for method, route in methods.items():
            parts += _route(path, method, route, description)
    return "\n".join(parts)


def _route(
    path: str, method: str, route: Mapping[str, Any], description: Mapping[str, Any]
) -> Iterator[str]:
    yield f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
    yield f"<p>{escape(route.get('description') or route.get('summary', ''))}</p>"
    body = route.get("requestBody")
    if body is None:
        return
    name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    schema = description["components"]["schemas"][name]
    kinds = ", ".join(route["responses"]["200"]["content"])
    yield f"<p>Answers: {escape(kinds)}.</p><table><tr><th>field<th>type<th>default<th></tr>"
    for field, about in schema["properties"].items():
        default = "required" if field in schema.get("required", ()) else about.get("default", "")
        cells = (f"<code>{field}</code>", _type(about), default, about.get("description", ""))
        yield (
            "<tr>"
            + "".join(
                f"<td>{cell if number == 0 else escape(str(cell))}"
                for number, cell in enumerate(cells)
            )
            + "</tr>"
        )
    yield "</table>"


def _type(about: Mapping[str, Any]) -> str:
    """Return a field's type with its range or choices."""
    about = next((one for one in about.get("anyOf", ()) if one.get("type") != "null"), about)
    if "enum" in about:
        return " | ".join(map(str, about["enum"]))
    names = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤"}
    bounds = [f"{sign} {about[name]:g}" for name, sign in names.items() if name in about]
    return " ".join([about.get("type", ""), *bounds])

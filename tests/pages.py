"""The Python of the documentation, block by block."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(path):
    """Each block of Python with the line it begins in."""
    text = path.read_text()
    for found in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield text[: found.start(1)].count("\n"), found[1]


def execute(path, namespace=None, replaced=()):
    """Run a page's blocks in order in one namespace, which is returned.

    ``replaced`` has pairs of texts, of which the first is on the page once.
    """
    space = {"__name__": "page"} if namespace is None else namespace
    for old, _ in replaced:
        assert sum(code.count(old) for _, code in blocks(path)) == 1, old
    for line, code in blocks(path):
        for old, new in replaced:
            code = code.replace(old, new)
        exec(compile("\n" * line + code, str(path), "exec"), space)
    return space

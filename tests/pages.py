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


def execute(path, namespace=None):
    """Run a page's blocks in order in one namespace, which is returned."""
    space = {"__name__": "page"} if namespace is None else namespace
    for line, code in blocks(path):
        exec(compile("\n" * line + code, str(path), "exec"), space)
    return space

"""The project's prose: words with a private meaning, and docstrings that do not open with a verb.

``python tests/test_prose.py`` lists every hit with its file and line.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
# "is none" in lower case only: Python's own "is None" is everywhere.
BANNED = re.compile(
    r"\b(?:[Tt]old|[Uu]ntold|[Mm]end(?:s|ed|ing)?|[Ll]ikewise|[Aa]new|com(?:es?|ing) to lie"
    r"|[Nn]obody says|[Ss]o many|is none|it knows no)\b"
)
READ = (
    "multidiff/**/*.py", "multidiff/**/*.md", "multidiff/**/*.yaml", "docs/**/*.md",
    "docs/**/*.py", "recipes/**/*.yaml", "benchmarks/**/*.py", "examples/**/*.py", "*.md",
)  # fmt: skip
OPENINGS = re.compile(r"^(?:What|Whether|How|Where|Which|Why)\b")
ARGUMENT = re.compile(r"^\s+\w+: of\b")
# Terms that a reader of the field searches for.
TERMS = (
    "ELBO", "NELBO", "KV cache", "RoPE", "top-p", "img2img", "inpainting", "infilling",
    "classifier-free guidance", "classifier guidance", "atomic", "gradient checkpointing",
)  # fmt: skip


def banned() -> list[str]:
    """Return ``file:line: text`` of every line with a banned word."""
    found = []
    for path in (path for pattern in READ for path in sorted(ROOT.glob(pattern))):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if BANNED.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:110]}")
    return found


def _docstrings() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "multidiff").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"
                yield where, ast.get_docstring(node) or ""


def openings() -> list[str]:
    """Return docstrings that open with a question word, and argument docs that open with "of"."""
    found = []
    for where, text in _docstrings():
        lines = text.splitlines()
        hits = [line for line in lines if ARGUMENT.match(line)]
        if OPENINGS.match(text):
            hits.append(lines[0])
        found.extend(f"{where}: {line.strip()[:100]}" for line in hits)
    return found


def test_no_banned_word():
    # The changelog of past versions stays as it was written.
    assert [hit for hit in banned() if not hit.startswith("CHANGELOG.md")] == []


def test_docstrings_open_with_a_verb():
    assert openings() == []


def test_the_fields_terms_can_be_found():
    text = "".join(path.read_text("utf-8") for path in sorted(ROOT.glob("docs/*.md"))).lower()
    assert [term for term in TERMS if term.lower() not in text] == []


if __name__ == "__main__":
    for one in (*banned(), *openings()):
        print(one)

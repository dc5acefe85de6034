"""The names of ``import multidiff as md``: importable, typed, documented, and lazy."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import multidiff as md

ROOT = Path(__file__).parent.parent
API = ROOT / "docs" / "api"
NAMES = set(md.__all__) - {"__version__"}


def test_every_name_is_what_its_module_has():
    for name in md.__all__:
        assert getattr(md, name) is not None
        assert name in dir(md)
    assert md.DDIM.__module__ == "multidiff.core.gaussian.samplers"
    assert md.train.__name__ == "train_recipe"
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        md.nonsense  # noqa: B018


def test_type_checkers_see_the_same_names():
    """Each name is re-exported under ``TYPE_CHECKING`` from the module that it is loaded from."""
    tree = ast.parse(Path(md.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    typed = {
        alias.asname: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == {
        name: (f"multidiff.{module}", attribute) for name, (module, attribute) in md._HOMES.items()
    }


def test_the_reference_lists_every_name_and_its_module():
    """Each row leads to the page of its module, whose entry mkdocstrings makes of ``:::``."""
    index = (API / "index.md").read_text().split("## The public names")[1]
    assert re.findall(r"^### (.+)$", index, re.M) == list(md._THEMES)
    rows = re.findall(r"^\| \[`(\w+)`\]\((\w+\.md)#([\w.]+)\) \| \S", index, re.M)
    assert {name for name, _, _ in rows} == NAMES
    for name, page, anchor in rows:
        module, attribute = md._HOMES[name]
        assert anchor == f"multidiff.{module}.{attribute}"
        assert f"::: multidiff.{module}\n" in (API / page).read_text(), name


def test_images_load_no_sound():
    """Nor does the package itself load torch."""
    code = (
        "import sys, multidiff as md; assert 'torch' not in sys.modules; md.ImageDiffusion; "
        "print([m for m in ('librosa', 'soundfile', 'multidiff.audio', 'multidiff.text') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr

"""Who may import whom, and how large files may grow."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import multidiff

PACKAGE = Path(multidiff.__file__).parent
ROOT = PACKAGE.parent
MODALITIES = ("audio", "image", "text")
# Models of several modalities at once: the one package that may import them all.
JOINT = "joint"
# What a modality package may use beside itself.
SHARED = {"core", "nn", "data", "config", "models", "utils", "__init__"}
ALLOWED = {
    "core": {"core"},
    "nn": {"core", "nn"},
    "utils": {"utils"},
    "config": {"config", "utils"},
    "data": {"core", "data", "utils"},
    "training": {"core", "data", "config", "models", "training", "utils", "__init__"},
    **{name: {*SHARED, name} for name in MODALITIES},
    JOINT: {*SHARED, *MODALITIES, JOINT},
}
# Data of any size knows no diffusion: of the core it takes random numbers alone.
DATA_OF_CORE = {"multidiff.core.random", "multidiff.core.draws"}
# Outside the standard library. jaxtyping is the language of shapes in signatures.
CORE_IMPORTS = {"torch", "jaxtyping"}


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def package(path):
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


@functools.cache
def contents(path):
    """The modules that a file imports, those among them at its top, and its functions."""
    tree = ast.parse(path.read_text())
    top = {n.module for n in tree.body if isinstance(n, ast.ImportFrom) and n.module}
    imports, functions = [], []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            imports.append(node.module)
        elif isinstance(node, ast.FunctionDef):
            functions.append((node.name, node.lineno, node.end_lineno))
    return imports, top, functions


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_import_rule(path):
    own = package(path)
    for name in contents(path)[0]:
        parts = name.split(".")
        if parts[0] == "multidiff":
            target = parts[1] if len(parts) > 1 else "__init__"
            assert target != "cli" or own in ("cli", "__main__"), f"{path} imports the command line"
            assert target != "serve" or own in ("cli", "serve"), f"{path} imports the service"
            if own in ALLOWED:
                assert target in ALLOWED[own], f"{path}: {own} may not import {target}"
            if own == "data" and target == "core":
                assert name in DATA_OF_CORE, f"{path}: data may not import {name}"
        elif own == "core":
            standard = parts[0] in sys.stdlib_module_names
            assert standard or parts[0] in CORE_IMPORTS, f"{path}: core may not import {name}"


def test_no_import_circles():
    graph = {}
    for path in modules():
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = {one for one in contents(path)[1] if one.startswith("multidiff.")}
    done, walking = set(), []

    def visit(name):
        assert name not in walking, f"import circle: {' -> '.join([*walking, name])}"
        if name in done:
            return
        walking.append(name)
        for target in graph.get(name, ()):
            visit(target)
        walking.pop()
        done.add(name)

    for name in graph:
        visit(name)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_stay_small(path):
    assert path.read_text().count("\n") <= 400
    for name, first, last in contents(path)[2]:
        assert last - first <= 75, f"{path}:{first} {name}"


def test_help_waits_for_nothing_heavy():
    """What makes --help slow is imports; times are for benchmarks."""
    code = (
        "import sys; from multidiff.cli.main import run; run(['--help']); "
        "print([m for m in ('torch', 'numpy', 'pydantic', 'ruamel') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


def test_the_wheel_holds_what_the_product_needs():
    """Package data: typed marker, starter recordings, every shipped model's files."""
    import tomllib

    data = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = data["tool"]["setuptools"]["package-data"]["multidiff"]
    for needed in ("py.typed", "starter/**/*", "pretrained/**/*"):
        assert needed in patterns

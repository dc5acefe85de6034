"""What the pages say runs, links that lead somewhere, and commands that exist."""

import ast
import re
import shlex
import sys
from types import ModuleType
from unittest.mock import patch

import pytest
from pages import PAGES, ROOT, blocks, execute
from program import refused
from shapes import unchecked

from multidiff.cli.main import run
from multidiff.config.registry import COMMANDS, COMPONENTS

MODALITY = ROOT / "docs" / "add_a_modality.md"
PYTHON = [page for page in PAGES if page != MODALITY and any(blocks(page))]
CI = ROOT / ".ci" / "run"
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", PYTHON, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    with unchecked():
        space = execute(page)
    if page.name == "quickstart.md":
        assert float(space["bound"].total.mean()) == pytest.approx(1.427, abs=0.003)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "farther", "apart"),
    [(120, 10, 1.5), pytest.param(2500, 2.5, 4, marks=pytest.mark.long)],
)
def test_a_new_modality_by_the_page(steps, farther, apart, tmp_path, monkeypatch):
    """Trains as the page says; its samples are nearly as near to real curves as real ones.

    After a twentieth of the steps they are on the way there, and each is of its own kind.
    """
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    pen = ModuleType("pen")  # what the page says to write: its classes are found by this name
    monkeypatch.setitem(sys.modules, "pen", pen)
    with patch.dict(COMPONENTS), patch.dict(COMMANDS), unchecked():
        space = execute(MODALITY, vars(pen), [("Trainer(steps=2500", f"Trainer(steps={steps}")])
        assert run(["check", "pen.yaml"]) == 0
        assert run(["check", "pen.yaml", "--dry-run"]) == 0
        assert run(["sample", "pen", "--prompt", "star", "--steps", "5", "-o", "star.png"]) == 0
        assert run(["sample", "pen", "--prompt", "moon", "-o", "moon.png"]) == 2
        assert run(["eval", "pen", "--steps", "5"]) == 0
    assert (tmp_path / "star.png").stat().st_size > 1000
    assert float(space["ratio"]) < farther
    distance, made, kind = (space[name] for name in ("distance_to_nearest", "made", "kind"))
    assert float(distance(made, kind.flip(0))) > apart * float(distance(made, kind))
    assert (tmp_path / "curves.png").stat().st_size > 10_000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        # GitHub resolves this one against the repository's address: the badge of the workflow.
        if not re.match(r"[a-z]+:|\.\./\.\./actions/", target):
            assert (page.parent / target).exists(), target


def commands():
    """Every line of a page that calls the program."""
    for page in PAGES:
        text = re.sub(r" *\\\n *", " ", page.read_text())  # a line that goes on in the next
        for line in re.findall(r"^(?:\$ )?(multidiff [a-z].*)$", text, re.MULTILINE):
            yield pytest.param(line, id=f"{page.stem}: {line[:40]}")


@pytest.mark.parametrize("line", list(commands()))
def test_commands_and_their_options_exist(line):
    import typer.main

    from multidiff.cli.main import app

    words = shlex.split(re.split(r"#|\||&&|\s{2,}", line)[0])
    group = typer.main.get_command(app)
    command = group.commands[words[1]]
    known = {option for parameter in command.params for option in parameter.opts}
    used = {word.split("=")[0] for word in words[2:] if re.match(r"--?[a-z]", word)}
    assert used <= known | options_of_packages(words[1], command) | {"--help"}


def options_of_packages(name, command):
    """What models, and readers of foreign checkpoints, add to a command that leaves words to them.

    For ``convert`` that is what either side takes: reading a checkpoint, or writing one.
    """
    from multidiff.config.build import locate
    from multidiff.config.options import option_names
    from multidiff.config.registry import COMMANDS, CONVERTERS

    if not command.context_settings.get("ignore_unknown_options"):
        return set()
    verb = "export" if name == "convert" else name
    targets = [verbs[verb] for verbs in COMMANDS.values() if verb in verbs]
    if name == "convert":
        targets += [f"{module}:convert" for module in CONVERTERS]
    assert targets, name
    return {f"--{name}" for target in targets for name in option_names(locate(target))}


def named_in_pages():
    """Every ``file.py::name`` of a page."""
    for page in PAGES:
        for path, name in re.findall(r"`([\w/]+\.py)::([\w.]+)", page.read_text()):
            yield pytest.param(path, name, id=f"{page.stem}: {name}")


@pytest.mark.parametrize(("path", "name"), list(named_in_pages()))
def test_code_and_tests_that_a_page_names_exist(path, name):
    roots = (ROOT, ROOT / "multidiff", ROOT / "tests")
    locations = [root / path for root in roots if (root / path).is_file()]
    assert locations, path
    definitions = ast.parse(locations[0].read_text()).body
    for part in name.split("."):
        found = [one for one in definitions if getattr(one, "name", None) == part]
        assert found, f"{path}: {name}"
        definitions = getattr(found[0], "body", [])


def test_pictures_are_made_by_the_script_and_shown_on_a_page():
    """And small: nobody waits for a page."""
    images, sounds = ROOT / "docs" / "images", ROOT / "docs" / "sounds"
    made = set(re.findall(r'^    "(\w+)": \(', (images / "make.py").read_text(), re.MULTILINE))
    text = "".join(page.read_text() for page in PAGES)
    assert set(re.findall(r"images/make\.py (\w+)", text)) == made
    for image in images.glob("*.png"):
        assert f"images/{image.name})" in text, image.name
        assert image.stat().st_size < 200_000, image.name
    for sound in sounds.iterdir():
        assert f"sounds/{sound.name})" in text, sound.name
    assert sum(sound.stat().st_size for sound in sounds.iterdir()) < 1_500_000


def test_ci_runs_what_the_readme_says():
    """But for the place that the sound is written to, and pip's silence."""
    readme = (ROOT / "README.md").read_text()
    script = CI.read_text().replace("--quiet ", "").replace('"$work/spoken.wav"', "spoken.wav")
    commands = re.findall(r"^(pip install .*)$", readme, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        for part in command.split(" && "):
            assert part in script, part


def test_the_readme_lists_every_shipped_model():
    cards = {card.parent.name for card in (ROOT / "multidiff/pretrained").glob("*/card.md")}
    rows = re.findall(r"^\| \[`([\w-]+)`\]\(multidiff/pretrained/([\w-]+)/card\.md\)", README, re.M)
    assert {name for name, _ in rows} == {folder for _, folder in rows} == cards


def test_the_site_shows_every_page():
    """``mkdocs build --strict`` runs in .ci/run; this needs no mkdocs."""
    pages = {str(page.relative_to(ROOT / "docs")) for page in PAGES if page.name != "README.md"}
    assert set(re.findall(r"([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)) == {
        *pages,
        "index.md",
    }


def test_the_readmes_recipes_exist():
    for page in PAGES:
        for name in re.findall(r"recipes/[\w/]+\.yaml", page.read_text()):
            assert (ROOT / name).is_file(), f"{page.name}: {name}"


def test_program_words_are_those_of_the_architecture():
    assert "No such command" in refused("sing")

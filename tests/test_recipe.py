"""Recipes: every fault at once, with file and line; the scalars of YAML 1.2."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from program import RECIPES

from multidiff.config.build import check_section, locate
from multidiff.config.recipe import parse, read_recipe, to_yaml
from multidiff.config.registry import COMMANDS, COMPONENTS
from multidiff.models.loading import SECTIONS, check_recipe
from multidiff.models.weights import without_values
from multidiff.utils.errors import InputError

ALL = sorted(RECIPES.rglob("*.yaml"))


def checked(text, catalogue=COMPONENTS):
    """Its sections; ``data`` may be any part here."""
    return check_section(parse(text, "r.yaml"), {**SECTIONS, "data": Any}, catalogue)


def faults(text):
    with pytest.raises(InputError) as reported:
        checked(text)
    return str(reported.value).splitlines()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("1E5", 1e5), ("-.5", -0.5), ("1_000", 1000), ("0x10", 16), ("007", 7),
        ("no", "no"), ("on", "on"), ("yes", "yes"), ("true", True), ("~", None), ("", None),
        ("12:30", "12:30"), ("1.", 1.0), (".inf", float("inf")), ("2026-11-22", "2026-11-22"),
        ("'5'", "5"), ("e5", "e5"), ("0o17", 15), ("-0x1F", -31), ("+5", 5),
        ("-.INF", -float("inf")),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text, value):
    found = parse(f"key: {text}", "r.yaml").plain()["key"]
    assert found == value and type(found) is type(value)


def test_five_faults_at_once_each_with_its_line():
    found = faults(
        """\
model:
  use: Vocoder
  domain: {use: SpectralDomain, hopp: 128}
  process:
    use: GaussianProcess
    schedule: {use: LogSNRSchedul}
    prediction: noize
  denoiser: {use: MDCTDenoiser, width: wide}
trainr:
  use: Trainer
"""
    )
    assert len(found) == 5
    assert found[0] == "r.yaml:3: SpectralDomain has no 'hopp'; did you mean hop?"
    assert found[1].startswith("r.yaml:6: unknown component 'LogSNRSchedul'; did you mean")
    assert found[2].startswith("r.yaml:7: no prediction 'noize'")
    assert found[3].startswith("r.yaml:8: 'wide' is not valid here: input should be a valid int")
    assert found[4] == "r.yaml:9: a recipe has no section 'trainr'; did you mean trainer?"


def test_what_is_missing_is_named():
    assert faults("trainer: {use: Trainer}") == ["r.yaml:1: Trainer needs 'steps'"]


def test_a_part_of_another_kind_is_refused():
    (found,) = faults(
        "data:\n  use: GaussianProcess\n  schedule: {use: SimpleLoss}\n  prediction: epsilon"
    )
    assert found.startswith("r.yaml:3: SimpleLoss is not a NoiseSchedule: it has no ")


@pytest.mark.parametrize(
    ("model", "reported"),
    [
        (
            "{use: SimpleLoss}",
            "SimpleLoss is not a Model: it has no task, metadata, assets, load_assets",
        ),
        ("{width: 3}", "model needs 'use', which names its class"),
    ],
)
def test_a_model_is_one_before_it_is_trained(model, reported):
    assert faults(f"model: {model}") == [f"r.yaml:1: {reported}"]


def test_what_a_constructor_refuses_has_its_line():
    parts = checked(
        "data:\n  use: GaussianProcess\n  schedule:\n    use: BetaSchedule.linear\n    steps: 20"
    )
    with pytest.raises(InputError, match=r"r\.yaml:3: beta 1 at step 19 of 20"):
        parts["data"].build()


def test_nothing_is_built_before_everything_is_right(monkeypatch):
    built = []
    monkeypatch.setattr(
        "multidiff.core.gaussian.losses.SimpleLoss.__init__", lambda *a, **k: built.append(1)
    )
    faults("data: {use: GaussianProcess, objective: {use: SimpleLoss}, schedule: 3, x: 1}")
    assert built == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [1, 2", "r.yaml:1: expected ',' or ']'"),
        ("- 1\n- 2", "a recipe is a mapping"),
        ("", "a recipe is a mapping"),
        ("a: 1\na: 2", "r.yaml:2: a appears twice"),
        ("a: 1\nb: !!bool maybe", "r.yaml:2: 'maybe' is not a valid bool"),
        ("a: 1\nb: !!set {c}", "r.yaml:2: the tag 'set' is not supported"),
        ("a: 1\nb: !!python/name:os.system x", "r.yaml:2: the tag 'python/name:os.system'"),
        ("a: 1\n? [b]\n: 2", "r.yaml:2: a key must be a word"),
        ("a: 1\nb: \x1b[31m", "r.yaml:2: holds the character '\\x1b'"),
        ("%YAML 1.1\n---\na: on", "r.yaml: is read as YAML 1.2"),
        ("a: 1\n---\nb: 2", "r.yaml:2: expected a single document"),
        ("a: " + "[" * 5000, "r.yaml:1: is nested too deeply"),
    ],
)
def test_what_is_no_recipe(text, reason):
    with pytest.raises(InputError) as reported:
        parse(text, "r.yaml")
    assert reason in str(reported.value) and "\n" not in str(reported.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_recipe(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read_recipe(tmp_path / "bytes.yaml")


def test_overrides(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("data: {list: [{a: 1}, {a: 2}], deep: {x: 1}}\n")
    tree = read_recipe(path, ["data.list.1.a=1e-3", "data.deep.y=[1, two]", "data.deep.x="])
    assert tree.plain() == {
        "data": {"list": [{"a": 1}, {"a": 1e-3}], "deep": {"x": None, "y": [1, "two"]}}
    }
    for wrong in ("data.list.7.a=1", "data.deep", "=3", "data.list.1.a.b=1"):
        with pytest.raises(InputError, match=r"override|the recipe has no"):
            read_recipe(path, [wrong])
    with pytest.raises(InputError, match=r"command line \(model.width\)"):
        check_section(
            read_recipe(RECIPES / "smoke" / "speech.yaml", ["model.width=3"]), SECTIONS, COMPONENTS
        )


@dataclass
class Inner:
    size: int
    kind: Literal["a", "b"] = "a"


class Outer:
    def __init__(
        self,
        inner: Inner,
        many: list[Inner],
        pair: tuple[float, float] = (0.0, 1.0),
        maybe: Inner | None = None,
        rate: float = 1e-3,
    ):
        self.inner, self.many, self.pair, self.maybe, self.rate = inner, many, pair, maybe, rate


def test_nested_objects_lists_and_tuples():
    catalogue = {"Outer": "test_recipe:Outer", "Inner": "test_recipe:Inner"}
    text = """\
model:
  use: Outer
  inner: {use: Inner, size: 3}
  many: [{size: 1}, {size: 2, kind: b}]
  pair: [2, 3.5]
"""
    part = check_section(parse(text, "r.yaml"), {"model": Any}, catalogue)["model"]
    built = part.build()
    assert built.inner == Inner(3)
    assert built.many == [Inner(1), Inner(2, "b")]
    assert built.pair == (2.0, 3.5) and built.maybe is None
    # Written out with its defaults it reads back to the same.
    assert part.resolved["rate"] == 1e-3 and part.resolved["inner"]["kind"] == "a"
    again = check_section(
        parse(to_yaml({"model": part.resolved}), "r.yaml"), {"model": Any}, catalogue
    )["model"]
    assert again.resolved == part.resolved
    with pytest.raises(InputError, match=r"r.yaml:4: Inner needs 'size'"):
        check_section(parse(text.replace("size: 1", ""), "r.yaml"), {"model": Any}, catalogue)


@pytest.mark.parametrize(
    "target", [*COMPONENTS.values(), *(t for v in COMMANDS.values() for t in v.values())]
)
def test_every_part_of_the_catalogue_is_there(target):
    assert callable(locate(target))


@pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(RECIPES)))
def test_every_recipe_in_the_tree_is_right(path: Path):
    parts = check_recipe(path)
    assert {"model", "data", "trainer"} <= set(parts)
    # Built without its data: those are the user's.
    with without_values():
        model = parts["model"].build()
    assert sum(p.numel() for p in model.parameters()) > 0
    resolved = to_yaml({name: part.resolved for name, part in parts.items()})
    again = check_section(parse(resolved, "resolved.yaml"), SECTIONS, COMPONENTS)
    assert {n: p.resolved for n, p in again.items()} == {n: p.resolved for n, p in parts.items()}


def test_every_gpu_recipe_has_a_smoke_recipe():
    smoke = {path.stem for path in (RECIPES / "smoke").iterdir()}
    packages = [folder for folder in RECIPES.iterdir() if folder.name != "smoke"]
    for package in packages:
        assert {path.stem for path in package.iterdir()} <= smoke


def test_an_optimizers_name_is_checked_before_anything_is_built():
    found = faults("trainer:\n  use: Trainer\n  steps: 1\n  optimizer: AdammW\n")
    assert found[0].startswith("r.yaml:4: optimizer 'AdammW': no such class in torch.optim")
    assert found[0].endswith("did you mean AdamW?")

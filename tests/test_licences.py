"""Every shipped file has a licence that the package names, with its text and its attribution."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CARDS = sorted((ROOT / "multidiff" / "pretrained").glob("*/card.md"))
STARTERS = sorted((ROOT / "multidiff" / "starter").glob("*/README.md"))
LICENCE = re.compile(r"CC0(?: 1\.0)?|Apache-2\.0|CC BY(?:-SA)? \d\.\d|cc-by-sa-3\.0", re.IGNORECASE)


def spdx(name):
    """The identifier of a licence as a card writes it: CC BY-SA 3.0 is CC-BY-SA-3.0."""
    if name.startswith("Apache"):
        return name
    return name.upper().replace(" ", "-").removesuffix("-1.0") + "-1.0" * name.startswith("CC0")


def data_section(card):
    return re.search(r"^## Data and licences?\n(.*?)(?=^## |\Z)", card.read_text(), re.M | re.S)[1]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.parent.name)
def test_a_card_names_its_data_attribution_and_licence(card):
    data = data_section(card)
    offered = spdx(re.search(r"^license: (.+)$", card.read_text(), re.M)[1])
    assert "weights" in data
    assert any(spdx(name) == offered for name in LICENCE.findall(data.replace("(CC0)", "CC0 1.0")))
    rows = [row for row in data.splitlines() if row.startswith("| ")][1:] or [data]
    for row in rows:
        assert re.search(r"\([A-Z][^)]+\)|: .*\([A-Z]", row) or "CC0" in row, row  # whose data
        assert LICENCE.search(row) or "public domain" in row, row
    # A model of data under share-alike is under the same terms, or those of a later version
    # (section 4b of CC BY-SA 3.0).
    shared = {spdx(name) for row in rows for name in LICENCE.findall(row) if "-SA" in name.upper()}
    assert all(one.rpartition("-")[0] in offered and one <= offered for one in shared)


def test_every_model_has_a_card():
    folders = {path.parent for path in (ROOT / "multidiff/pretrained").rglob("*.safetensors")}
    assert folders == {card.parent for card in CARDS}


def test_the_package_names_each_licence_and_has_its_text():
    named = set(PROJECT["license"].split(" AND "))
    cards = {spdx(re.search(r"^license: (.+)$", card.read_text(), re.M)[1]) for card in CARDS}
    starters = {spdx(LICENCE.search(page.read_text())[0]) for page in STARTERS}
    assert named == {"Apache-2.0"} | cards | starters
    assert named == {path.stem for path in (ROOT / "LICENSES").glob("*.txt")}
    assert "LICENSES/*.txt" in PROJECT["license-files"]

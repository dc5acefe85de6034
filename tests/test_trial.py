"""``check`` finds what constructors refuse and what does not lie there, without reading data."""

import time
import tracemalloc

import pytest
from commands import complains, does
from program import RECIPES

from multidiff.image.tokenizers import ClipTokenizer
from multidiff.models.trial import try_recipe
from multidiff.text.data.subwords import HuggingFaceVocabulary, SentencePieceVocabulary
from multidiff.utils.errors import InputError

DIGITS = (RECIPES / "smoke" / "digits_pixels.yaml").read_text()
IMAGES = """\
data:
  use: Batches
  batch_size: {batch_size}
  examples: {{use: Images, source: {source}, size: {size}}}
"""


def with_schedule(schedule):
    """A recipe of the tree with another schedule, on its line 8."""
    lines = DIGITS.splitlines()
    (number,) = [n for n, line in enumerate(lines) if "schedule:" in line]
    lines[number] = f"    schedule: {schedule}"
    return "\n".join(lines), number + 1


def faults(tmp_path, text, **options):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        try_recipe(path, **options)
    return [line.removeprefix(f"{path}") for line in str(caught.value).splitlines()]


def images(source="{path: 'starter:digits'}", batch_size=2, size="[8, 8]"):
    return IMAGES.format(source=source, batch_size=batch_size, size=size)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("trainer: {steps: 1}", ":1: trainer needs 'use'"),
        (
            "trainer: {use: Trainer, steps: 1, compile: !!bool maybe}",
            ":1: 'maybe' is not a valid bool",
        ),
        ("trainer: {use: Trainer, steps: -3}", ":1: "),
        ("trainer: {use: Batches, examples: 1, batch_size: 1}", ":1: Batches is not a Trainer"),
        ("trainer: 3", ":1: 3 is not valid here"),
        ("data: {use: Trainer, steps: 1}", ":1: Trainer is not a BatchSource"),
        (images("digits"), ":4: 'digits' is not valid here: write a mapping, {path: digits}"),
        (images(batch_size=0), ":1: 1 examples, batch_size 0: both must be > 0"),
        (images(size="[0, 8]"), ":4: size (0, 8)"),
        (images("{path: nowhere/at/all}"), ":4: nowhere/at/all: no such file or folder"),
        (images("{path: digits.zip}"), ":4: digits.zip: no such file or folder of images"),
        (images("{path: 'starter:nothing'}"), ":4: starter:nothing: no such file or folder"),
        ("weights: [{model: nowhere/at/all}]", ":1: no model 'nowhere/at/all'"),
        ("weights: [{model: a.zip}]", ":1: no model 'a.zip'"),
    ],
)  # fmt: skip
def test_each_fault_has_its_line(tmp_path, text, fault):
    (found,) = faults(tmp_path, text)
    assert found.startswith(fault), found


@pytest.mark.parametrize(
    "schedule",
    [
        "{use: BetaSchedule.cosine, steps: -3}",
        "{use: BetaSchedule.linear, steps: 4000000000}",
        "{use: BetaSchedule.linear, steps: 10, first: .nan}",
        "{use: LogSNRSchedule, highest: -9.0, lowest: 7.0}",
    ],
)
def test_schedules_are_built(tmp_path, schedule):
    text, number = with_schedule(schedule)
    (found,) = faults(tmp_path, text)
    assert found.startswith(f":{number}: "), found


@pytest.mark.parametrize("size", [3_000_000_000, 10**15, 10**30])
def test_vocabularies_that_no_memory_holds(tmp_path, size):
    text = (RECIPES / "smoke" / "masked_text.yaml").read_text()
    assert "size: " in text
    began = time.process_time()
    tracemalloc.start()
    found = faults(tmp_path, text.replace("size: ", f"size: {size} #", 1))
    assert tracemalloc.get_traced_memory()[1] < 50 << 20 and time.process_time() - began < 10
    tracemalloc.stop()
    assert found and all(line.startswith(":") for line in found)


def test_all_of_them_at_once_and_data_only_where_it_is_asked_for(tmp_path, capsys):
    path = tmp_path / "r.yaml"
    path.write_text(
        images("{path: nowhere.png}", batch_size=0) + "trainer: {use: Trainer, steps: 0}\n"
    )
    complains(capsys, "check", path, lines=3)
    complains(capsys, "check", "--skip-data", path, lines=2)
    assert "1 of 1" in does(capsys, "check", RECIPES / "smoke" / "digits.yaml")


def test_vocabularies_that_are_not_there(tmp_path):
    for one in (
        HuggingFaceVocabulary(9, str(tmp_path)),
        SentencePieceVocabulary(9, model=str(tmp_path / "a.model")),
        ClipTokenizer(str(tmp_path)),
    ):
        with pytest.raises(InputError, match="no such file"):
            one.check_path()

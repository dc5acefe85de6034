"""What the sampling commands of text models take and refuse, and when lines appear."""

import io
import sys

import pytest
from commands import complains, does, facts

import multidiff as md
from multidiff.text.masked.cli import sample
from multidiff.text.request import TextRequest, batches_of

DRAFTS = ["the eagle is is a cheap pub .", "a pub", "the mill serves food ."]


# ------------------------------------------------------------------------------ many texts


def test_drafts_of_a_file_and_of_standard_input_come_in_their_order(
    small_edits, tmp_path, monkeypatch, capsys
):
    path = tmp_path / "drafts.txt"
    path.write_text("\n".join(DRAFTS) + "\n")
    options = [word for draft in DRAFTS for word in ("--source", draft)]
    words = ["sample", small_edits, "--steps", 2]
    wanted = does(capsys, *words, *options)
    assert len(wanted.splitlines()) == 3
    assert does(capsys, *words, "--source-file", path) == wanted
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    assert does(capsys, *words, "--source", "-", "-o", tmp_path / "out.txt") == wanted
    assert (tmp_path / "out.txt").read_text() == wanted


def test_each_source_and_each_text_to_fill_in_counts(small_rewriter, small_masked, capsys):
    words = ["sample", small_rewriter, "--steps", 2, "--length", 5]
    words += ["--source", "a pub", "--source", "cheap food"]
    found = facts(capsys, *words)["outputs"]
    assert [one["source"] for one in found] == ["a pub", "cheap food"]
    assert "infill" not in found[0]
    infills = ["the [MASK] .", "[MASK] pub [MASK] [MASK]"]
    words = ["sample", small_masked, "--steps", 2, "--prompt", "food[French]", "-n", 2]
    words += ["--infill", infills[0], "--infill", infills[1]]
    found = facts(capsys, *words)["outputs"]
    assert [one["infill"] for one in found] == [infills[0]] * 2 + [infills[1]] * 2
    assert [one["words"] for one in found] == [3, 3, 4, 4]
    assert [one["seed"] for one in found] == [0, 1, 0, 1]


def test_texts_appear_batch_by_batch_and_are_the_same(small_masked):
    model = md.load(small_masked)
    requests = [TextRequest(length=length) for length in [5, 20, 6, 12, 5, 30, 7, 4]]
    whole = model.generate(requests, steps=2, batch_size=2)
    seen, made = [], []
    make = model._made

    def noted(*arguments, **options):
        seen.append(len(made))
        return make(*arguments, **options)

    model._made = noted
    assert model.generate(requests, steps=2, batch_size=2, on_text=made.append) == whole == made
    # Canvases have 8, 24, 16 and 32 positions. A text waits for those before it alone.
    assert seen == [0, 1, 3, 4, 5, 7]
    twice = model.generate(
        requests[:3], steps=2, batch_size=2, num_candidates=2, on_text=made.append
    )
    assert made[8:] == twice


def test_batches_come_by_their_earliest_text():
    lengths = [5, 20, 6, 5, 21, 7]
    assert batches_of(lengths, 2) == [[0, 2], [1, 4], [3, 5]]


def test_lines_are_passed_on_as_they_are_made(small_masked, tmp_path):
    lines = []
    model = md.load(small_masked)
    options = {"num": 3, "prompts": [], "out": tmp_path / "a.txt", "seed": 0, "length": 4}
    options["sampling"] = model.sampling.replace(steps=2)
    report = sample(model, **options, on_line=lines.append)
    assert lines == report.lines == (tmp_path / "a.txt").read_text().splitlines()
    shown = []
    report = sample(model, **options, show_steps=True, on_line=shown.append)
    assert shown == report.lines and len(shown) == 3 * 2 + 2


# ------------------------------------------------------------------------------ without a word


def test_a_text_without_blanks_is_continued(small_masked, small_restaurant, capsys):
    """Never echoed: at least one word follows, up to a length that is drawn or given."""
    for folder in (small_masked, small_restaurant):
        words = ["sample", folder, "--steps", 2, "-n", 4, "--infill", "the eagle is"]
        for one in facts(capsys, *words)["outputs"]:
            assert one["text"].startswith("the eagle is ") and one["words"] > 3
        for one in facts(capsys, *words, "--length", 9)["outputs"]:
            assert one["text"].startswith("the eagle is") and one["words"] == 9
        assert "set --length above 3" in complains(capsys, *words, "--length", 3)
        assert "--infill 3, --length 2" in complains(capsys, *words, "--length", 2)
        long = "the eagle is " * 11
        assert "writes 1 to 31 tokens; shorten" in complains(capsys, *words[:-1], long)
    said = complains(capsys, *words, "--control", "length=2")
    assert "--infill 3, --control length 2" in said


def test_running_text_goes_on_or_says_why_not(small_characters, capsys):
    words = ["sample", small_characters, "--steps", 2, "--infill"]
    (one,) = facts(capsys, *words, "The Eagle")["outputs"]
    assert one["text"].startswith("The Eagle") and one["words"] == 32
    for more in (["The Eagle", "--length", "9"], ["The Eagle is a cheap pub near the river"]):
        reported = complains(capsys, *words, *more)
        assert (
            f"has {len(more[0])} tokens and no [MASK]; set --length above {len(more[0])}"
            in reported
        )


@pytest.mark.parametrize(
    ("model", "words", "reported"),
    [
        (
            "small_masked",
            ["--guidance-scale", 2],
            "--guidance-scale 2: strengthens a --prompt; give one",
        ),
        (
            "small_restaurant",
            ["--guidance-scale", 2],
            "--guidance-scale 2: strengthens a --prompt; give one",
        ),
        (
            "small_characters",
            ["--guidance-scale", 2],
            "--guidance-scale 2: this model has no condition",
        ),
        (
            "small_restaurant",
            ["--control-strength", "1,1,1"],
            "--control-strength 1,1,1: requires --control",
        ),
    ],
)
def test_options_that_would_do_nothing_are_refused(request, capsys, model, words, reported):
    assert reported in complains(capsys, "sample", request.getfixturevalue(model), *words)

"""Measures of editors: of ones whose figures are known, and from the command line."""

from pathlib import Path

import pytest
import torch
from commands import complains, does, facts
from rapidfuzz.distance import Levenshtein

import multidiff as md
from multidiff.core.edit.alignment import KEEP, REPLACE, align
from multidiff.core.random import generators
from multidiff.text.diffuser.bench import Bench
from multidiff.text.diffuser.evaluation import measure
from multidiff.text.diffuser.previews import preview
from multidiff.text.diffuser.reviser import Revision
from multidiff.text.diffuser.sampling_config import EditSamplingConfig
from multidiff.text.metrics.eval_split import eval_split, source_of
from multidiff.text.metrics.ngram import NGramModel

STARTER = "starter:restaurant/sentences.csv"
ALL = 6


def biased(folder, keep=0.0, replace=0.0, insert=0.0):
    """The model with a tagger that says the same everywhere."""
    model = md.load(folder)
    model.editor.tagger.weight.zero_()
    model.editor.tagger.bias.copy_(torch.tensor([keep, replace, -9.0]))
    model.editor.inserter.weight.zero_()
    model.editor.inserter.bias.fill_(insert)
    return model


def measured(model, seed=0, steps=None, **options):
    sampling = model.sampling.replace(steps=steps)
    return measure(model, None, Path(), seed=seed, sampling=sampling, **options)


def texts_of(model, num=ALL):
    """What the measures compare with."""
    split = eval_split(source_of(None, "text", None), model.domain.vocabulary, num)
    rows = Bench(model, EditSamplingConfig(), split, False, 0).rows(num, "repair")
    return [split.real[row] for row in rows], split


def test_an_editor_that_keeps_everything(small_edits):
    model = biased(small_edits, keep=9, insert=-9)
    found = measured(model, num=ALL, seed=3).facts
    real, _ = texts_of(model)
    count = len(real)
    assert found["fixed"] == {"tokens_kept": 1, "gaps_kept": 1, "texts_kept": 1, "texts": count}
    assert list(found["repair"]) == ["1 step", "2 steps", "3 steps"]
    for steps, conditional in enumerate(found["repair"].values(), start=1):
        drafts = [
            model.corruption().corrupt(text, steps, rng)[-1].tokens[: model.editor.length]
            for text, rng in zip(real, generators(range(3, 3 + count)), strict=True)
        ]
        distances = [
            Levenshtein.distance(one, other) for one, other in zip(drafts, real, strict=True)
        ]
        assert conditional["distance_before"] == pytest.approx(sum(distances) / count)
        assert (
            conditional["distance_after"] == conditional["distance_before"]
            and conditional["fall_percent"] == 0
        )
        assert (
            conditional["repaired"] == distances.count(0) / count
            and conditional["revision_beams"] == 0
        )
        pairs = zip(drafts, real, strict=True)
        tags = [tag for draft, text in pairs for tag in align(draft, text).tags]
        assert conditional["all_kept_right"] == pytest.approx(tags.count(KEEP) / len(tags))
        assert conditional["tags_right"] == conditional["all_kept_right"]
        assert (
            0
            <= conditional["history_differs_in_gaps"]
            < conditional["history_differs_in_tags"]
            < 0.5
        )


def test_an_editor_that_replaces_everything(small_edits):
    model = biased(small_edits, replace=9, insert=9)
    report = measured(model, fixed=ALL, repair=ALL, steps=1)
    fixed, once = report.facts["fixed"], report.facts["repair"]["1 step"]
    assert fixed["tokens_kept"] == fixed["texts_kept"] == 0
    assert fixed["gaps_kept"] == 1  # what is replaced whole needs no insertion beside
    real, _ = texts_of(model)
    drafts = [
        model.corruption().corrupt(text, 1, rng)[-1].tokens
        for text, rng in zip(real, generators(range(len(real))), strict=True)
    ]
    scripts = [align(draft, text) for draft, text in zip(drafts, real, strict=True)]
    passages = [span for one in scripts for span in one.passages() if span.edit == REPLACE]
    replaced = sum(span.stop - span.start for span in passages)
    assert once["tags_right"] == pytest.approx(replaced / sum(map(len, drafts)))
    assert once["distance_after"] > once["distance_before"] and once["fall_percent"] < 0
    assert any(line.split()[0] == "tokens_kept" for line in report.lines[1:])


def test_an_editor_that_inserts_everywhere(small_edits):
    """Where no room is left, insertions wait."""
    model = biased(small_edits, keep=9, insert=9)
    found = measured(model, fixed=ALL).facts["fixed"]
    lengths = [len(text) for text in texts_of(model)[0]]
    filled = sum(min(one + 1, model.editor.length - one) for one in lengths)
    assert filled < sum(lengths) + len(lengths)
    assert found["gaps_kept"] == pytest.approx(1 - filled / (sum(lengths) + len(lengths)))
    assert found["tokens_kept"] == 1 and found["texts_kept"] == 0


def test_an_editor_that_knows(small_edits, monkeypatch):
    model = md.load(small_edits)
    real, _ = texts_of(model)

    def knows(drafts, requests, config, seed):
        pairs = zip(drafts, real, strict=True)
        return [[Revision(tuple(draft)), Revision(tuple(text))] for draft, text in pairs]

    monkeypatch.setattr(model, "revise", knows)
    for conditional in measured(model, repair=ALL).facts["repair"].values():
        assert conditional["distance_after"] == 0 and conditional["fall_percent"] == 100
        assert conditional["repaired"] == 1 and conditional["revision_beams"] == 1


def test_texts_from_noise_and_from_nothing(small_edits, capsys):
    found = facts(
        capsys, "eval", small_edits, "--held-out-every", 0, "--from-noise", ALL, "--from-nothing",
        ALL, "--steps", "5", "--edit-margin", "-99", "--temperature", "1",
    )  # fmt: skip
    assert set(found) == {
        "data",
        "held_out_every",
        "unknown",
        "from_noise",
        "from_nothing",
        "faults",
    }
    model = md.load(small_edits)
    real, split = texts_of(model)
    ngram = NGramModel(split.other, 4)
    noise, nothing = found["from_noise"], found["from_nothing"]
    assert list(noise) == ["noise", "after 1", "after 4", "after 5", "real"]
    assert list(nothing) == ["after 1", "after 4", "after 5", "real"]
    assert noise["real"] == nothing["real"]
    assert noise["real"]["nats_per_token"] == pytest.approx(ngram.nats_per_token(split.real))
    assert noise["noise"]["length"] == pytest.approx(sum(map(len, real)) / len(real))
    assert noise["noise"]["nats_per_token"] > noise["real"]["nats_per_token"]
    # A fifth of the words is written in the first revision, all of them in the last.
    assert noise["after 1"]["nats_per_token"] != noise["after 5"]["nats_per_token"]


@pytest.mark.long
def test_drafts_of_another_model(small_edits, small_restaurant, capsys):
    found = facts(
        capsys, "eval", small_edits, "--bootstrap", small_restaurant, "--num", ALL, "--conditional",
        "--held-out-every", 0,
    )  # fmt: skip
    conditional = found["bootstrap"]
    assert list(conditional) == ["drafts", "revised", "real"] and "fixed" not in found
    assert conditional["real"]["obeyed"] > conditional["drafts"]["obeyed"] >= 0
    for name, ratios in found["obeyed"].items():
        assert conditional[name]["obeyed"] == pytest.approx(sum(ratios.values()) / len(ratios))
    still = facts(
        capsys, "eval", small_edits, "--bootstrap", small_restaurant, "--num", ALL,
        "--edit-margin", "99",
    )["bootstrap"]  # fmt: skip
    assert still["revised"].pop("edits") == 0
    assert still["revised"] == still["drafts"]


def test_what_the_texts_say_is_told_only_if_asked(small_edits):
    model = md.load(small_edits)
    revise, asked = model.revise, []
    model.revise = lambda drafts, requests, **more: (
        asked.append([one.meaning for one in requests]) or revise(drafts, requests, **more)
    )
    for conditional in (False, True):
        measured(model, fixed=ALL, conditional=conditional)
    split = texts_of(model)[1]
    rows = Bench(model, EditSamplingConfig(), split, True, 0).rows(ALL, "fixed")
    assert asked == [[{}] * len(rows), [split.meanings[row] for row in rows]]


def test_pairs_are_rewritten(small_edits, small_translator, tmp_path, capsys):
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"the pub {n} .\tthe pub {n} is cheap .\n" for n in range(9)))
    found = facts(
        capsys, "eval", small_edits, path, "--rewrite", "4", "--beside", small_translator,
        "--column", "1", "--source-column", "0", "--headless", "--edit-margin", "99",
    )["rewrite"]  # fmt: skip
    assert found["texts"] == 4 and set(found) == {"texts", "rewritten", "beside", "copied"}
    assert found["copied"]["unchanged"] == 1 and 0 < found["copied"]["bleu"] < 100


def test_a_model_that_reads_sources_is_told_them(small_translator, capsys):
    words = ["eval", small_translator, STARTER, "--source-column", "meaning", "--fixed", "3"]
    assert facts(capsys, *words, "--held-out-every", "10")["fixed"]["texts"] > 0
    conditional = complains(capsys, "eval", small_translator, "--fixed", "3")
    assert "name their --source-column" in conditional


def test_tables_for_people(small_edits, capsys):
    printed = does(capsys, "eval", small_edits, "--num", "3", "--steps", "1").splitlines()
    heads = [line.split() for line in printed]
    assert ["clean", "texts"] in heads and ["1", "step", "2", "steps", "3", "steps"] in heads


@pytest.mark.parametrize(
    ("words", "conditional"),
    [
        (["--num", "0"], "there is nothing to measure"),
        (["--fixed", "-1"], "there is nothing to measure"),
        (["--sampler", "ddpm"], "--sampler: no such option here"),
        (["--steps", "0"], "--steps 0: from 1 to 10000"),
        (["--rewrite", "3"], "name --source-column"),
        (["no.csv"], "no such file"),
        (["--beside", "nowhere"], "no model 'nowhere'"),
    ],
)
def test_what_cannot_be_measured(small_edits, capsys, words, conditional):
    assert conditional in complains(capsys, "eval", small_edits, *words)


def test_texts_that_are_all_too_long(small_edits, tmp_path, capsys):
    path = tmp_path / "long.txt"
    path.write_text(f"{'the pub ' * 30}\n" * 9)
    conditional = complains(capsys, "eval", small_edits, path, "--repair", "3")
    assert "--repair 3: no text is as short as 40 words" in conditional


# -------------------------------------------------------------------------------- previews


class Writer:
    def __init__(self):
        self.texts = {}

    def add_text(self, name, text, step):
        self.texts[name, step] = text.splitlines()


@pytest.mark.parametrize("ratios", [{}, {"from_nothing": 1.0}, {"from_source": 0.5}])
def test_previews(small_translator, ratios):
    model = md.load(small_translator)
    model.from_nothing = model.from_source = 0.0
    for name, ratio in ratios.items():
        setattr(model, name, ratio)
    batch = {"text": ["a pub .", "the river ."] * 6, "source": ["name[The Mill]"] * 12}
    writer = Writer()
    write = preview(model, batch)
    write(writer, 7)
    assert writer.texts["original", 0] == ["- a pub .", "- the river ."] * 4
    assert set(writer.texts) == {("original", 0), ("draft", 0), ("revised", 7)}
    assert [len(lines) for lines in writer.texts.values()] == [8, 8, 8]
    wanted = {"from_nothing": "- ", "from_source": "- name[The Mill]"}
    for name in ratios:
        assert set(writer.texts["draft", 0]) == {wanted[name]}
    again = Writer()
    preview(model, batch)(again, 7)
    assert again.texts == writer.texts


def test_previews_are_told_meanings(small_edits):
    model = md.load(small_edits)
    requests = []
    revise = model.revise
    model.revise = lambda drafts, conditional: (
        requests.append(conditional) or revise(drafts, conditional)
    )
    meaning = {"food": "Italian"}
    preview(model, {"text": ["a pub."] * 3, "meaning": [meaning] * 3})(Writer(), 0)
    assert [request.meaning for request in requests[0]] == [meaning] * 3

"""Editing on the command line, and how edits and what is unknown are written out."""

import io
import json
import re
from dataclasses import replace

import pytest
import torch
from commands import complains, does, facts
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import one_hot
from vocabularies import TEXTS, source_of

import multidiff as md
from multidiff.cli.parsing import printed
from multidiff.core.edit.alignment import DELETE, KEEP, REPLACE, Span, align, rewrite
from multidiff.text.data.subwords import SentencePieceVocabulary
from multidiff.text.data.vocabulary import CharacterVocabulary, WordVocabulary
from multidiff.text.diffuser.network import Editor
from multidiff.text.diffuser.rendering import COLORED, PLAIN, facts_of, lines_of, wants_colour
from multidiff.text.diffuser.reviser import Revision
from multidiff.text.diffuser.sampling_config import FRESH
from multidiff.text.diffuser.spelling import Spelling, origins_of
from multidiff.text.request import TextRequest

DRAFT = "the eagle is is a cheap near pub the river ."
MENDED = "the eagle is a cheap pub near the river."
# Without any caution everything is edited, a third of it at a time.
BOLD = ("--edit-margin", "-99", "--edits-per-step", "even", "--steps", "3", "--temperature", "1")


@pytest.fixture
def every_kind(monkeypatch):
    """A tagger that goes by the numbers of the tokens, so that all kinds of edits come about."""

    def tags(editor, encoding):
        tokens = encoding.drafts.tokens
        kinds = torch.tensor([KEEP, KEEP, REPLACE, KEEP, DELETE])[tokens % 5]
        return 6.0 * one_hot(kinds, 3), torch.where(tokens % 4 == 1, 4.0, -4.0)

    monkeypatch.setattr(Editor, "tags", tags)


def applied(line):
    """The texts before and after, of a line with its number and its edits marked."""
    text = line.partition(": ")[2]
    before = re.sub(r"\{\+.*?\+\}", "", text)
    after = re.sub(r"\[-.*?-\]", "", text)
    return re.sub(r"\[-(.*?)-\]", r"\1", before), re.sub(r"\{\+(.*?)\+\}", r"\1", after)


# ----------------------------------------------------------------------------- the command


def test_a_draft_is_revised(small_edits, capsys):
    printed = does(capsys, "sample", small_edits, "--source", DRAFT, *BOLD)
    assert len(printed.splitlines()) == 1 and printed.strip() != MENDED
    assert does(capsys, "sample", small_edits, "--source", DRAFT, *BOLD) == printed
    cautious = does(capsys, "sample", small_edits, "--source", DRAFT, "--edit-margin", "99")
    assert cautious == "the eagle is is a cheap near pub the river.\n"


def test_shown_edits_lead_from_revision_to_revision(small_edits, capsys):
    words = ["sample", small_edits, "-n", "2", "--source", DRAFT, "--show-edits", *BOLD]
    lines = does(capsys, *words).splitlines()
    found = facts(capsys, *words)["outputs"]
    for output in found:
        before, number = output["source"], 0
        assert lines.pop(0) == f"0: {before}"
        for number, revision in enumerate(output["revision_beams"], start=1):
            line = lines.pop(0)
            assert line.startswith(f"{number}: ") and applied(line) == (before, revision["text"])
            before = revision["text"]
        assert number and lines.pop(0) == before == output["text"]
    assert not lines


def test_json_tells_every_edit(small_edits, every_kind, capsys):
    found = facts(
        capsys, "sample", small_edits, "-n", "2", "--seed", "5", "--source", DRAFT,
        "--source", "a pub", "--prompt", "food[Italian]", "--prompt", "area[riverside]", *BOLD[2:],
    )  # fmt: skip
    outputs = found["outputs"]
    assert [one["seed"] for one in outputs] == [5, 6] * 4
    assert [one["source"] for one in outputs] == ([MENDED_SOURCE] * 2 + ["a pub"] * 2) * 2
    assert [one["prompt"] for one in outputs[3:5]] == ["food[Italian]", "area[riverside]"]
    edits = [edit for one in outputs for step in one["revision_beams"] for edit in step["edits"]]
    assert {edit["edit"] for edit in edits} == {"replace", "delete", "insert"}
    for edit in edits:
        assert bool(edit["removed"]) == (edit["edit"] != "insert") == (edit["start"] < edit["stop"])
        assert bool(edit["written"]) == (edit["edit"] != "delete")
    for one in outputs:
        assert one["text"] == [one["source"], *(step["text"] for step in one["revision_beams"])][-1]
        scores = [step["score"] for step in one["revision_beams"]]
        assert scores == sorted(scores, reverse=True)


MENDED_SOURCE = "the eagle is is a cheap near pub the river."


def test_texts_begin_from_noise_or_from_nothing(small_edits, capsys):
    xt = facts(capsys, "sample", small_edits, "-n", "3", "--length", "7", "--steps", "2")
    model = md.load(small_edits)
    for one in xt["outputs"]:
        assert len(model.domain.vocabulary.numbers(one["source"])) == 7
    assert len({one["source"] for one in xt["outputs"]}) == 3
    free = facts(capsys, "sample", small_edits, "-n", "4", "--steps", "1", "--start", "noise")
    assert len({len(one["source"].split()) for one in free["outputs"]}) > 1
    for words in (["--start", "nothing"], ["--start", "nothing", "--source", " "]):
        found = facts(capsys, "sample", small_edits, *words, "--steps", "1", "--temperature", "1")
        (one,) = found["outputs"]
        assert one["source"] == "" and one["text"]
        assert [edit["edit"] for edit in one["revision_beams"][0]["edits"]] == ["insert"]


def test_another_model_drafts(small_edits, small_restaurant, capsys):
    prompt = "food[French]"
    found = facts(
        capsys, "sample", small_edits, "-n", "2", "--bootstrap", small_restaurant, "--prompt",
        prompt, "--length", "6", "--seed", "3", "--edit-margin", "99",
    )  # fmt: skip
    request = TextRequest({"food": "French"}, length=6)
    drafts = md.load(small_restaurant).generate([request] * 2, seed=3)
    assert [one["text"] for one in found["outputs"]] == drafts


@pytest.mark.parametrize("start", [["--length", "9"], ["--start", "nothing"]])
def test_drawn_where_texts_begin_from_noise_or_nothing(small_edits, capsys, start):
    words = ["sample", small_edits, *start, "--steps", "2"]
    drawn = facts(capsys, *words)["outputs"][0]
    own = [word for name, value in FRESH.items() for word in (f"--{name.replace('_', '-')}", value)]
    assert facts(capsys, *words, *own)["outputs"][0] == drawn
    words += ["--edit-margin", "-99"]
    drawn = facts(capsys, *words)["outputs"][0]
    assert facts(capsys, *words, "--top-p", FRESH["top_p"])["outputs"][0] == drawn
    assert facts(capsys, *words, "--temperature", "0")["outputs"][0] != drawn


def test_all_edits_at_once_or_an_even_share(small_edits, every_kind, capsys):
    words = ["sample", small_edits, "--length", "24", "--steps", "3"]
    every = facts(capsys, *words)["outputs"][0]["revision_beams"][0]["edits"]
    ratio = facts(capsys, *words, "--edits-per-step", "even")["outputs"][0]["revision_beams"][0][
        "edits"
    ]
    assert len(every) > 3 and len(ratio) == -(-len(every) // 3)


def test_several_candidates_are_a_walk_of_their_own(small_edits, every_kind, capsys):
    """Whatever stands beside a draft, and however many are revised at once."""
    model = md.load(small_edits)
    drafts = model.numbers(["the pub is cheap in the", "a a a a a", ""])
    sampling = replace(model.sampling, steps=2, temperature=1.0, num_candidates=6, edit_margin=-1.0)
    found = [one[-1].tokens for one in model.revise(drafts, config=sampling, seed=4)]
    parted = model.revise(drafts, config=sampling, seed=4, batch_size=5)
    assert found == [one[-1].tokens for one in parted]
    assert all(found) and found != [one[-1].tokens for one in model.revise(drafts, config=sampling)]
    printed = does(capsys, "sample", small_edits, "--source", DRAFT, *BOLD, "--num-candidates", "4")
    assert printed != does(capsys, "sample", small_edits, "--source", DRAFT, *BOLD)


def test_texts_into_a_file_or_a_folder(small_edits, tmp_path, capsys):
    words = ["sample", small_edits, "--source", DRAFT, *BOLD, "-n", "2"]
    lines = does(capsys, *words, "-o", tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == lines
    does(capsys, *words, "--show-edits", "-o", tmp_path / "folder")
    assert (tmp_path / "folder" / "samples.txt").read_text() == lines


def test_what_is_unknown_and_kept_comes_as_it_was_typed(small_edits, capsys):
    draft = "the Eagle 👩\u200d🚀 (漢字, Zürich) serves #1 кириллица food."
    kept = "the eagle 👩\u200d🚀 (漢字, Zürich) serves #1 кириллица food."
    printed = does(capsys, "sample", small_edits, "--source", draft, "--edit-margin", "99")
    assert printed == f"{kept}\n"


def test_a_model_that_reads_sources_writes_from_them(small_translator, capsys):
    words = ["sample", small_translator, "--source", "name[The Mill]", "--steps", "1"]
    found = facts(capsys, *words, "--length", "5")["outputs"][0]
    assert found["source"] and found["source"] != "name[The Mill]"
    nothing = facts(capsys, *words, "--start", "nothing")["outputs"][0]
    assert nothing["source"] == "" and nothing["text"]
    other = ["sample", small_translator, "--source", "eatType[pub] " * 3, "--steps", "1"]
    scores = [
        facts(capsys, *some, "--start", "nothing")["outputs"][0]["revision_beams"][0]["score"]
        for some in (words, other)
    ]
    assert scores[0] != scores[1]
    assert "makes texts from source texts" in complains(capsys, "sample", small_translator)
    long = complains(capsys, "sample", small_translator, "--source", "x " * 200)
    assert "this model reads at most 95" in long
    conditional = complains(capsys, *words, "--prompt", "food[Thai]")
    assert "was trained without meanings" in conditional


@pytest.mark.parametrize(
    ("words", "conditional"),
    [
        (["--source", ""], "--source '': is blank"),
        (["--source", " \t"], "is blank; write one, or --start nothing"),
        (["--source", "a " * 41], "has 41 tokens, but this model reads at most 40; shorten it"),
        (["--source", "a\x07b"], "U+0007 is a control character; remove it"),
        (["--source", "a\x1b[0m\nb"], "U+001B is a control character"),
        (["--source", "a\ud800"], "U+D800 is half a surrogate pair"),
        (["--source", "a", "--start", "noise"], "--start noise: --source is the draft"),
        (["--source", "a", "--start", "nothing"], "--start nothing: --source is the draft"),
        (["--source", "a", "--length", "5"], "--length 5: is for noise"),
        (["--start", "nothing", "--length", "5"], "--length 5: is for noise"),
        (["--start", "somewhere"], "--start somewhere: input should be 'nothing' or 'noise'"),
        (["--length", "0"], "a length of 0: this model reads 1 to 40 tokens"),
        (["--length", "41"], "a length of 41: this model reads 1 to 40 tokens"),
        (["--steps", "0"], "--steps 0: from 1 to 10000"),
        (["--beam", "0"], "--beam 0: from 1 to 10000"),
        (["--revision-beams", "0"], "--revision-beams 0: from 1 to 10000"),
        (["--revision-beams", "2"], "--revision-beams 2: no more than --beam 1"),
        (["--beam", "2", "--revision-beams", "3"], "--revision-beams 3: no more than --beam 2"),
        (["--beam", "2", "--temperature", "1"], "a beam keeps the likeliest and draws nothing"),
        (["--num-candidates", "0"], "--num-candidates 0: from 1 to 1000"),
        (["--num-candidates", "4", "--beam", "2"], "as beside a --beam, all are the same text"),
        (["--temperature", "-1"], "--temperature -1: 0 or more; 0 takes the likeliest"),
        (["--top-p", "0"], "--top-p 0: above 0, up to 1; 1 is all"),
        (["--edit-margin", "nan"], "--edit-margin nan: input should be a finite number"),
        (["--edit-margin", "much"], "--edit-margin much: "),
        (["--edits-per-step", "slow"], "--edits-per-step slow: input should be 'all' or 'even'"),
        (["--sampler", "ddpm"], "--sampler: no such option here"),
        (["--guidance-scale", "2"], "--guidance-scale: no such option here"),
        (["--prompt", "food[Klingon]"], "food=Klingon: unknown value of food"),
        (["--prompt", "Italian"], "'Italian' is not a meaning"),
        (["--infill", "a"], "--infill: no such option here; expected one of --beam"),
        (["--bootstrap", "nowhere"], "no model 'nowhere'"),
    ],
)
def test_what_cannot_be_edited(small_edits, capsys, words, conditional):
    assert conditional in complains(capsys, "sample", small_edits, *words)


def test_a_bootstrap_has_the_drafts(small_edits, small_restaurant, capsys):
    words = ["sample", small_edits, "--bootstrap", small_restaurant]
    for more in (["--source", "a pub"], ["--start", "noise"]):
        assert f"remove {more[0]}" in complains(capsys, *words, *more)
    conditional = complains(capsys, "sample", small_edits, "--bootstrap", small_edits)
    assert "is an EditedText, needs a TextModel" in conditional


def test_a_vocabulary_that_does_not_fit_the_weights(small_edits, tmp_path, capsys):
    import shutil

    folder = shutil.copytree(small_edits, tmp_path / "model")
    kept = json.loads((folder / "vocabulary.json").read_text())
    kept["pieces"].pop()
    kept["counts"].pop()
    (folder / "vocabulary.json").write_text(json.dumps(kept))
    conditional = complains(capsys, "sample", folder, "--source", "a pub")
    assert "vocabulary of size 199, but the model's is 200" in conditional


# ------------------------------------------------------------------- lines and spelling


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory):
    def source(*texts):
        return source_of(tmp_path_factory.mktemp("texts"), texts)

    return [
        WordVocabulary(30, source(*TEXTS, PLAIN_TEXT)),
        CharacterVocabulary(40, source(*TEXTS, PLAIN_TEXT)),
        SentencePieceVocabulary(28, source(*[PLAIN_TEXT, "ab cd ef gh", "the cab had a bag"] * 3)),
    ]


PLAIN_TEXT = "a b c d, e (f) g. h-i £j"


def history_of(vocabulary, draft, others):
    """A history through some texts, by minimal edits."""
    numbers = [vocabulary.numbers(text) for text in (draft, *others)]
    history = [Revision(tuple(numbers[0]))]
    for tokens in numbers[1:]:
        known = [token for token in tokens if token > 2]
        script = align(history[-1].tokens, known)
        history.append(Revision(tuple(known), script.passages(), history[-1].score - 1))
    return history


DRAFTS = st.one_of(
    st.sampled_from(TEXTS),
    st.text("ab (,.-£é漢🙂\u200dQ", min_size=1, max_size=12).filter(str.strip),
)


@given(DRAFTS, st.lists(st.text("abcdefgh (,.-£", max_size=12), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_lines_of_edits_hold_both_texts(vocabularies, draft, others):
    for vocabulary in vocabularies:
        history = history_of(vocabulary, draft, others)
        spelling = Spelling(vocabulary, draft)
        lines, texts = lines_of(spelling, history, MARKS), spelling.texts(history)
        assert lines[0] == f"0: {texts[0]}" and len(lines) == len(texts)
        for number in range(1, len(lines)):
            assert read_marks(lines[number]) == (texts[number - 1], texts[number])
        conditional = facts_of(spelling, history)
        assert [one["text"] for one in conditional] == texts[1:]


# Of characters that no draft holds; the plain ones may be part of a text.
MARKS = type(PLAIN)(("\x01", "\x02"), ("\x03", "\x04"))


def read_marks(line):
    text = line.partition(": ")[2]
    before = re.sub("\x03[^\x04]*\x04", "", text)
    after = re.sub("\x01[^\x02]*\x02", "", text)
    return re.sub("[\x01\x02]", "", before), re.sub("[\x03\x04]", "", after)


@given(DRAFTS)
@settings(max_examples=60, deadline=None)
def test_drafts_that_are_left_alone_keep_what_is_unknown(vocabularies, draft):
    words, characters, pieces = vocabularies
    for vocabulary in (characters, pieces):
        (text,) = Spelling(vocabulary, draft).texts(history_of(vocabulary, draft, []))
        assert text == draft
    (text,) = Spelling(words, draft).texts(history_of(words, draft, []))
    assert "\ufffd" not in text
    assert "".join(text.split()).lower() == "".join(words.split(draft))


def test_unknown_words_are_followed_to_where_they_come(tmp_path):
    words = WordVocabulary(10, source_of(tmp_path, ["a b c d e h g"]))
    draft = "a XX b Yy c"
    history = history_of(words, draft, [])
    spans = (
        Span(DELETE, 0, 1), Span(REPLACE, 2, 3, tuple(words.numbers("h g"))), Span(DELETE, 4, 5)
    )  # fmt: skip
    history.append(Revision(rewrite(history[0].tokens, spans), spans))
    assert origins_of(history) == [[0, 1, 2, 3, 4], [1, -1, -1, 3]]
    assert Spelling(words, draft).texts(history)[1] == "XX h g Yy"


def test_lines_as_people_read_them(tmp_path):
    words = WordVocabulary(9, source_of(tmp_path, ["a b c d e."]))
    history = history_of(words, "a b b c.", ["a b d c", "e a b d c", "b d c"])
    assert lines_of(Spelling(words, "a b b c."), history, PLAIN) == [
        "0: a b b c.",
        "1: a b[- b-]{+ d+} c[-.-]",
        "2: {+e +}a b d c",
        "3: [-e a -]b d c",
    ]
    colored = lines_of(Spelling(words, "a b b c."), history, COLORED)[1]
    assert re.sub("\x1b\\[[0-9;]*m", "", colored) == "1: a b b d c." and "\x1b[9;31m" in colored


def test_a_terminal_gets_the_marks_of_edits_and_no_other_code(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    shown = Terminal()
    monkeypatch.setattr("sys.stdout", shown)
    marked = f"a {COLORED.removed[0]}b{COLORED.removed[1]}{COLORED.written[0]}c{COLORED.written[1]}"
    assert printed([f"{marked}\x1b[2J\x07"])
    assert shown.getvalue() == f"{marked}\\x1b[2J\\x07\n"


def test_colours_are_for_terminals(monkeypatch):
    class Terminal:
        def isatty(self):
            return True

    class Pipe(Terminal):
        def isatty(self):
            return False

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert wants_colour(Terminal()) and not wants_colour(Pipe())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour(Terminal())

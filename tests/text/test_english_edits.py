"""Editors of English prose: words and characters, mistakes in writing, sentence by sentence."""

from collections import Counter
from typing import Any

import pytest
import torch
from editors import strong_editor
from vocabularies import kept, source_of

from benchmarks.english_edits import NGramCorrector, by_hand, judged, with_mistakes
from benchmarks.english_sentences import add_known_words, joined, without_rare, words_of
from multidiff.core.edit.process import EditProcess
from multidiff.core.random import generators, uniforms
from multidiff.text.data.hybrid import HybridVocabulary
from multidiff.text.data.vocabulary import UNKNOWN
from multidiff.text.diffuser import cli, writing_mistakes
from multidiff.text.diffuser.draft_sources import _read
from multidiff.text.diffuser.model import EditedText
from multidiff.text.diffuser.revised_texts import revise_drafts
from multidiff.text.diffuser.sampling_config import EditSamplingConfig
from multidiff.text.diffuser.sentence_parts import sentences
from multidiff.text.diffuser.writing_mistakes import KINDS, WritingMistakes, misspelled
from multidiff.text.domain import TextDomain
from multidiff.text.request import TextRequest
from multidiff.utils.errors import InputError

LINES = ['"The cat is here," he said.', "The dog's bed is there.", "I see the cat; it is red."] * 5
SIZE = 39
TEXT = "The old man is there, and I don't see his dog."


@pytest.fixture
def vocabulary(tmp_path):
    return HybridVocabulary(SIZE, source_of(tmp_path, LINES))


def drawn(kind, count=200, text=TEXT):
    mistakes = WritingMistakes(mean=1.0, kinds={kind: 1.0})
    return [mistakes.damaged(text, uniforms(rng)) for rng in generators(range(count))]


def test_frequent_words_are_tokens_and_others_are_spelled(vocabulary, tmp_path):
    whole = [vocabulary.text([n]) for n in vocabulary.numbers("The cat is here.")]
    assert whole == ["The", "cat", "is", "here", "."]
    slip = vocabulary.numbers("The cta is here.")
    assert [vocabulary.text([n]) for n in slip] == ["The", "", "c", "t", "a", "is", "here", "."]
    for text in [*LINES, "hte  there", "The catss, tehre"]:
        assert vocabulary.text(vocabulary.numbers(text)) == text
    assert vocabulary.numbers("Q") == [vocabulary.numbers(" ")[0], UNKNOWN]
    assert vocabulary.unknown("a Q") == ["Q"] and vocabulary.text([UNKNOWN]) == "\ufffd"
    again = HybridVocabulary(SIZE)
    again.load_assets(kept(vocabulary, tmp_path / "kept"))
    assert again.numbers(TEXT) == vocabulary.numbers(TEXT)


def test_a_size_that_does_not_fit_is_refused(tmp_path):
    for size in (10, 4000):
        with pytest.raises(InputError, match="set a size between"):
            HybridVocabulary(size, source_of(tmp_path, LINES)).numbers("a")


def test_each_kind_of_mistake():
    words = TEXT.split()
    without = {" ".join(words[:n] + words[n + 1 :]) for n in range(len(words))}
    assert {*drawn("drop")} <= without | {TEXT.replace(" there,", ",")}
    assert "The old old man is there, and I don't see his dog." in drawn("double")
    assert "Old the man is there, and I don't see his dog." in drawn("swap")
    assert {one.replace(" ", "") for one in drawn("join") + drawn("split")} == {
        TEXT.replace(" ", "")
    }
    assert {*drawn("lower")} == {"the" + TEXT[3:], TEXT.replace("I", "i")}
    assert {*drawn("apostrophe")} == {TEXT.replace("'", "")}
    printed = TEXT.replace("'", "\u2019")
    assert {*drawn("apostrophe", text=printed)} == {TEXT.replace("'", "")}
    assert printed.replace("don", "doesn") in drawn("bend", 400, printed)
    assert TEXT.replace("there", "their") in drawn("confuse")
    assert TEXT.replace("is there", "are there") in drawn("bend")
    assert all(len(one.split()) == len(words) + 1 for one in drawn("insert"))


def test_misspelled_words():
    counts = Counter(misspelled("there", uniforms(rng)) for rng in generators(range(2000)))
    assert {"tehre", "ther", "theere", "thete", "thera"} <= {*counts}
    assert counts["there"] < 0.35 * 2000  # a slip that does not apply
    for text in drawn("misspell"):
        changed = [a for a, b in zip(text.split(), TEXT.split(), strict=True) if a != b]
        assert len(changed) <= 1


def test_a_misspelled_word_is_never_empty():
    """A word of two letters loses one, and has none to lose then."""
    found = drawn("misspell", 3000, "to be or no")
    assert all(len(one.split()) == 4 for one in found)
    assert any(len(one) == len("to be or n") for one in found)


def test_mistakes_are_reproducible_and_checked(vocabulary):
    mistakes, tokens = WritingMistakes(mean=2.5), vocabulary.numbers(LINES[0])
    one, same, other = (
        [mistakes(tokens, rng, vocabulary) for rng in generators(range(first, first + 20))]
        for first in (0, 0, 50)
    )
    assert one == same != other
    assert mistakes([*tokens, UNKNOWN], None, vocabulary) == [*tokens, UNKNOWN]
    assert mistakes([], None, vocabulary) == []
    assert all(hasattr(WritingMistakes, f"_{kind}") for kind in KINDS)
    with pytest.raises(ValueError, match="'typo' of mistakes: choose among misspell"):
        WritingMistakes(kinds={"typo": 1.0})
    with pytest.raises(ValueError, match=r"mean 0\.5 must|mean 0\.5 at least 1"):
        WritingMistakes(mean=0.5)


def test_keys_have_their_neighbours_on_a_keyboard():
    beside = writing_mistakes.NEIGHBOURS
    assert (
        {*beside["s"]} == {*"adwezx"} and {*beside["q"]} == {*"wa"} and {*beside["m"]} == {*"njk"}
    )


def test_sentences_and_what_is_between_them():
    text = 'Mr. Hill came.  "Did he?" It is 5 p.m. now!\n\nDear J. Smith,\nyes.'
    parts = sentences(text)
    assert [one for one, _ in parts] == [
        "Mr. Hill came.", '"Did he?"', "It is 5 p.m. now!", "Dear J. Smith,", "yes.",
    ]  # fmt: skip
    assert "".join(one + gap for one, gap in parts) == text
    assert sentences(" \n") == [("", " \n")] and sentences("  a ") == [("", "  "), ("a", " ")]
    wide = " " * 200_000  # minutes, were it searched from each of them
    assert sentences(f"One two.{wide}three.\n\n{wide}four") == [
        (f"One two.{wide}three.", f"\n\n{wide}"), ("four", ""),
    ]  # fmt: skip
    assert sentences("a\r\n\r\nb\rc") == [("a", "\r\n\r\n"), ("b", "\r"), ("c", "")]


def test_a_letter_is_revised_sentence_by_sentence(vocabulary, tmp_path, capsys):
    """Each as if it were alone, however long the whole; what is between them stays."""
    editor = strong_editor(size=SIZE, length=30)
    domain = TextDomain(vocabulary, 30)
    options: Any = {"sampling": EditSamplingConfig(steps=2)}
    whole = EditedText(domain, EditProcess(SIZE), editor, by_sentence=True, **options)
    plain = EditedText(domain, EditProcess(SIZE), editor, **options)
    path = tmp_path / "letter.txt"
    path.write_text("The cat is here.  The dog is red.\n\nI see it; it is teh cat.\n", "utf-8")

    def outputs(model, *sources):
        asked = {"num": 1, "prompts": [], "out": None, "seed": 3, "sampling": model.sampling}
        report = cli.sample(model, source=[*sources], show_edits=True, **asked)
        return report.facts["outputs"]

    (made,) = outputs(whole, str(path))
    parts = ["The cat is here.", "The dog is red.", "I see it; it is teh cat."]
    alone = [one["text"] for part in parts for one in outputs(whole, part)]
    assert made["text"] == f"{alone[0]}  {alone[1]}\n\n{alone[2]}"
    assert made["source"] == path.read_text("utf-8").rstrip() and alone != parts
    with pytest.raises(InputError, match=r"missing\.txt: no such file"):
        outputs(whole, str(tmp_path / "missing.txt"))
    path.write_bytes(b" \r\n")
    with pytest.raises(InputError, match=r"letter\.txt: is blank"):
        outputs(whole, str(path))
    assert outputs(plain, "letter.txt")[0]["source"] == "letter.txt"


def test_a_sentence_too_long_for_the_model_stays_and_is_named(vocabulary, tmp_path, caplog):
    editor = strong_editor(size=SIZE, length=30)
    model = EditedText(TextDomain(vocabulary, 30), EditProcess(SIZE), editor, by_sentence=True)
    long = "the cat " * 20 + "is."
    path = tmp_path / "letter.txt"
    code = "```\nThe cat is here.\n```\n"
    path.write_bytes(f"\n  I see it.\r\n\r\n{long}  The dog is red.\n\n{code}".encode())
    asked: Any = {"num": 2, "prompts": [], "out": None, "seed": 3}
    report = cli.sample(model, source=[str(path)], sampling=EditSamplingConfig(steps=2), **asked)
    (one, _), typed = report.facts["outputs"], path.read_bytes().decode().removesuffix("\n")
    assert one["source"] == typed and one["unread_lines"] == [4] != typed
    assert one["text"].startswith("\n  ") and f"\r\n\r\n{long}  " in one["text"]
    assert one["text"].endswith(f"\n{code}"[:-1]) and one["text"] != typed
    (warned,) = {one.getMessage() for one in caplog.records}
    assert "--source, line 4: " in warned and "at most 30 in a sentence" in warned
    (empty,) = _read(model, [TextRequest()], [3], [""], "--bootstrap")
    assert revise_drafts(model, [empty], EditSamplingConfig())[0].text == ""
    _, prose = _read(model, [TextRequest()], [3], ["```x``` here.\n\nThe dog is red."], "")
    assert not prose.unread


def test_drafts_of_training_have_mistakes(vocabulary):
    process = EditProcess(SIZE, steps=1)
    mistakes = WritingMistakes(mean=1.0, kinds={"double": 1.0})
    model = EditedText(
        TextDomain(vocabulary, 40), process, strong_editor(size=SIZE, length=40), mistakes=mistakes
    )
    texts = [LINES[1]] * 40
    batch = model.task().edit_batch({"text": texts}, generators(range(40)))
    lengths = Counter((batch.drafts.real.sum(1) - 1).tolist())
    count = len(vocabulary.numbers(LINES[1]))
    assert lengths[count] > 5 and sum(lengths.values()) - lengths[count] > 10  # clean, and doubled
    assert torch.equal(
        batch.drafts.tokens[3][batch.drafts.real[3]],
        model.task().edit_batch({"text": texts[3:4]}, generators([3])).drafts.tokens[0],
    )


def test_the_judge_counts_edits_of_words():
    pairs = [("teh cat sit", "the cat sits"), ("a dog", "a dog")]
    found = judged(pairs, ["the cat sit", "a big dog"])
    assert (found["precision"], found["recall"], found["F0.5"]) == (0.5, 0.5, 0.5)
    found = judged(pairs, ["the cat sit", "a dog"])  # 1.25 P R / (P / 4 + R)
    assert found["F0.5"] == pytest.approx(1.25 * 0.5 / 0.75) and found["whole"] == 0.5
    assert judged(pairs, [clean for _, clean in pairs])["F0.5"] == 1
    assert judged(pairs, [damaged for damaged, _ in pairs])["F0.5"] == 0
    assert judged([("a b c d", "a c b d")], ["a c b d"])["F0.5"] == 1


def test_sentences_damaged_by_hand():
    pairs = by_hand()
    assert len(pairs) == len({*pairs}) == 100 and all(damaged != clean for damaged, clean in pairs)
    assert with_mistakes(LINES[:3], 5) == with_mistakes(LINES[:3], 5)


def test_words_of_whole_texts_become_known_but_for_those_left_out(vocabulary, tmp_path):
    texts = ["The CAT's boat leaks; 3 owls, an owl, x.", "A vole and owls."]
    words = words_of(texts, ["A vole and owls."])
    assert words == {"the", "cat's", "boat", "leaks", "owl", "owls", "an"}
    folder, slip = kept(vocabulary, tmp_path / "kept"), vocabulary.numbers("thre")
    (folder / "known_words.txt").write_text("rare\n", "utf-8")
    assert add_known_words(folder, words | {"thre"}) == 8  # all but "the", and two more
    vocabulary.load_assets(folder)
    assert {*vocabulary.nearest(slip, 1)} == {(UNKNOWN,)}
    assert {*vocabulary.nearest(vocabulary.numbers("teh"), 1)} == {(*vocabulary.numbers("the"),)}


def test_sentences_of_wikisplit_are_joined_and_slips_left_out():
    tokens = "'' Addicted To You '' is Anthony Callea 's song ( 1999 - 2001 ) , and costs $ 5 ."
    wanted = '"Addicted To You" is Anthony Callea\'s song (1999-2001), and costs $5.'
    assert joined(tokens) == wanted
    assert joined("She did n't go .") == "She didn't go."
    found = ["A dog and the cat.", "A dgo and the cat.", "The Rabigh cat.", "A barn."]
    assert without_rare(found, ["the barn and a dog"]) == [found[0], *found[2:]]


def test_a_4_gram_takes_words_at_one_edit_and_drops_doubled_ones():
    gram = NGramCorrector(["The cat sat on the mat.", "The dog sat on the mat."] * 3, margin=1.0)
    assert gram.corrected("Teh cat sat  on the the mta.") == "The cat sat  on the mat."
    assert gram.corrected("The fox sat on the mat.") == "The fox sat on the mat."

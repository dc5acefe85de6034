"""Masked models of texts on the command line, as users run them."""

import shutil

import pytest
from commands import complains, does, facts
from program import RECIPES

import multidiff as md
from multidiff.text.data.vocabulary import BLANK, END, PAD, with_blanks
from multidiff.text.masked.cli import with_masks
from multidiff.text.previews import preview_masked

STARTER = "starter:restaurant/sentences.csv"
SOURCE = "name [Zizzi], food [Italian]"


def test_samples_come_a_line_each_and_into_files(small_masked, tmp_path, capsys):
    words = ["sample", small_masked, "-n", 3, "--steps", 3, "--length", 6]
    printed = does(capsys, *words, "-o", tmp_path / "a.txt")
    assert len(printed.splitlines()) == 3 and printed == does(capsys, *words)
    assert (tmp_path / "a.txt").read_text() == printed
    does(capsys, *words, "-o", tmp_path / "folder")
    assert (tmp_path / "folder" / "samples.txt").read_text() == printed


def test_samples_as_json(small_masked, capsys):
    found = facts(
        capsys, "sample", small_masked, "-n", 2, "--steps", 3, "--seed", 5, "--length", 7,
        "--prompt", "food[Italian], area[riverside]", "--prompt", "food[French]",
        "--guidance-scale", 2, "--top-p", 0.9, "--temperature", 0.8, "--num-candidates", 2,
    )  # fmt: skip
    assert [one["seed"] for one in found["outputs"]] == [5, 6, 5, 6]
    assert [one["prompt"] for one in found["outputs"]][2:] == ["food[French]"] * 2
    assert all(one["words"] == 7 and "steps" not in one for one in found["outputs"])


@pytest.mark.parametrize("sampler", ["ancestral", "confidence", "random", "remasking"])
def test_known_words_stay(small_masked, capsys, sampler):
    infill = "The [MASK] serves [MASK] food ."
    words = ["-n", 3, "--steps", 3, "--infill", infill, "--sampler", sampler]
    vocabulary = md.load(small_masked).domain.vocabulary
    asked = with_blanks(vocabulary, infill)
    for line in does(capsys, "sample", small_masked, *words).splitlines():
        found = vocabulary.numbers(line)
        assert [one and number for one, number in zip(asked, found, strict=True)] == asked


def test_steps_are_shown_for_each_text(small_masked, tmp_path, capsys):
    infill = "The [MASK] serves [MASK] food ."
    words = ["sample", small_masked, "-n", 2, "--steps", 4, "--infill", infill]
    plain = does(capsys, *words).splitlines()
    shown = does(capsys, *words, "--show-steps", "-o", tmp_path / "a.txt")
    texts = [part.splitlines() for part in shown.split("\n\n")]
    assert [len(lines) for lines in texts] == [4, 4]
    assert (tmp_path / "a.txt").read_text().splitlines() == plain
    vocabulary = md.load(small_masked).domain.vocabulary
    for lines, text in zip(texts, plain, strict=True):
        states = [with_blanks(vocabulary, line.split(maxsplit=1)[1]) for line in lines]
        assert [line.split()[0] for line in lines] == ["1", "2", "3", "4"]
        assert states[-1] == vocabulary.numbers(text)
        masks = [state.count(None) for state in states]
        assert masks == sorted(masks, reverse=True) and masks[0] == 1
        for state in states:
            assert len(state) == 6
            assert all(one in (None, last) for one, last in zip(state, states[-1], strict=True))
    found = facts(capsys, *words, "--show-steps")["outputs"]
    assert [one["steps"][-1] for one in found] == [one["text"] for one in found] == plain


def test_states_with_masks_are_read_again(small_masked, small_characters):
    for folder, text in (
        (small_masked, f"the {BLANK} {BLANK} serves, {BLANK} food."),
        (small_characters, f"{BLANK}he {BLANK}{BLANK}agle {BLANK}"),
    ):
        words = md.load(folder).domain.vocabulary
        numbers = [words.size if one is None else one for one in with_blanks(words, text)]
        shown = with_masks(words, [*numbers, END, PAD, PAD], words.size)
        assert with_blanks(words, shown) == with_blanks(words, text)
        assert with_masks(words, [END], words.size) == ""


def test_running_text_of_any_length(small_characters, capsys):
    words = ["sample", small_characters, "--steps", 2]
    for length in (1, 20, 75):
        (one,) = facts(capsys, *words, "--length", length)["outputs"]
        assert len(one["text"]) == one["words"] == length
    assert facts(capsys, *words)["outputs"][0]["words"] == 32
    infill = "The [MASK][MASK] Eagle"
    (one,) = facts(capsys, *words, "--infill", infill)["outputs"]
    assert one["text"].startswith("The ") and one["text"].endswith(" Eagle")
    assert len(one["text"]) == 12
    (one,) = facts(capsys, *words, "--infill", infill, "--length", 40)["outputs"]
    assert one["text"].startswith("The ") and one["text"][6:12] == " Eagle"
    assert len(one["text"]) == 40
    reported = complains(capsys, *words, "--infill", infill, "--length", 11)
    assert "--infill 12, --length 11: the lengths contradict" in reported
    # Of 40 characters it reads 32 at a time: two stretches, two steps each.
    shown = does(capsys, *words, "--show-steps", "--length", 40).splitlines()
    assert [line[:3] for line in shown] == ["1  ", "2  ", "3  ", "4  "]


def test_running_text_in_blocks(small_blocks, capsys):
    words = ["sample", small_blocks]
    for length in (1, 30, 45):
        (one,) = facts(capsys, *words, "--length", length)["outputs"]
        assert len(one["text"]) == one["words"] == length
    (one,) = facts(capsys, *words, "--infill", "The [MASK][MASK] Eagle")["outputs"]
    assert one["text"].startswith("The ") and one["text"].endswith(" Eagle")
    # Three blocks of four characters, in two steps each or one for each character.
    for steps in ([], ["--steps", 2]):
        shown = does(capsys, *words, *steps, "--show-steps", "--length", 12).splitlines()
        assert len(shown) == (6 if steps else 12)
    bits = facts(capsys, "eval", small_blocks, "--bound", 3)["bits_per_character"]
    assert 4 < bits["model, at most"]["mean"] < 6.2  # hardly trained; log2 of 67 is 6.07
    assert bits["model, given the text before, at most"]["mean"] < 6.2


def test_texts_are_made_from_others(small_rewriter, capsys):
    """Hardly trained, it hardly follows its condition: guidance amplifies it."""
    words = ["sample", small_rewriter, "-n", 6, "--steps", 3, "--length", 9, "--source"]
    loud = ["--guidance-scale", 300]
    one, other = (
        does(capsys, *words, text, *loud) for text in (SOURCE, "a pub in the city centre")
    )
    assert one == does(capsys, *words, SOURCE, *loud) != other
    assert does(capsys, *words, SOURCE) != one


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["--infill", "the [MASK] zebra"], "[MASK] zebra: the model does not know zebra"),
        (["--infill", ""], "--infill 0: this model writes 1 to 31 tokens"),
        (["--infill", "[MASK] " * 32], "--infill 32: this model writes 1 to 31 tokens"),
        (["--infill", "[MASK]", "--length", "2"], "--infill 1, --length 2: the lengths contradict"),
        (["--length", "0"], "--length 0: this model writes 1 to 31 tokens"),
        (["--length", "32"], "--length 32: this model writes 1 to 31 tokens"),
        (["--steps", "-1"], "--steps -1: from 0"),
        (
            ["--sampler", "ddpm"],
            "--sampler ddpm: expected one of ancestral, confidence, random, remasking",
        ),
        (["--temperature", "-1"], "--temperature -1: 0 or more; 0 takes the likeliest"),
        (["--temperature", "nan"], "--temperature nan: input should be a finite number"),
        (["--top-p", "0"], "--top-p 0: above 0, up to 1"),
        (["--top-p", "1.5"], "--top-p 1.5: above 0, up to 1"),
        (["--guidance-scale", "-1"], "--guidance-scale -1: 0 or more"),
        (["--num-candidates", "0"], "--num-candidates 0: from 1 to 1000"),
        (["--num-candidates", "2", "--show-steps"], "--num-candidates 2: --show-steps shows one"),
        (["--source", "a pub"], "--source a pub: this model has no sources; remove it"),
        (["--prompt", "food[Klingon]"], "food=Klingon: unknown value of food"),
        (["--prompt", "Italian"], "'Italian' is not a meaning"),
        (
            ["--control", "food=Italian"],
            "--control: no such option here;",
        ),
    ],
)
def test_what_cannot_be_sampled(small_masked, capsys, words, reported):
    assert reported in complains(capsys, "sample", small_masked, *words)


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        ([], "this model makes texts from source texts; give one"),
        (["--source", " "], "this model makes texts from source texts; give one"),
        (["--source", "a zebra"], "--source a zebra: the model does not know zebra"),
        (["--source", "food " * 40], "has 40 tokens, but this model reads at most 39; shorten it"),
        (["--source", SOURCE, "--prompt", "food[Thai]"], "was trained without meanings"),
    ],
)
def test_what_cannot_be_made_from_others(small_rewriter, capsys, words, reported):
    assert reported in complains(capsys, "sample", small_rewriter, *words)


def test_running_text_that_cannot_be_sampled(small_characters, capsys):
    words = ["sample", small_characters]
    assert "--length 0: this model writes 1 to" in complains(capsys, *words, "--length", "0")
    reported = complains(capsys, *words, "--prompt", "food[Italian]")
    assert "--prompt food[Italian]: this model was trained without meanings" in reported


# ------------------------------------------------------------------------------ measuring


def test_measures(small_masked, capsys):
    found = facts(
        capsys, "eval", small_masked, "--num", 40, "--steps", 2, "--bound", 3, "--blanks", 5
    )
    for name in ("samples", "real"):
        assert {"nats_per_token", "distinct_2", "entropy", "self_bleu"} <= set(found[name])
    assert found["samples"]["nats_per_token"] > found["real"]["nats_per_token"] + 1
    assert set(found["obeyed"]) == set(found["obeyed_by_real"])
    assert found["blanks"]["filled by the model"]["known_kept"] == 1
    bound = found["bound"]
    assert set(bound) == {"reported", "unconditional", "1-gram", "2-gram", "4-gram"}
    assert bound["reported"]["tokens"] != bound["unconditional"]["tokens"]
    # Hardly trained, it is far from the n-grams, and near ln 200 = 5.3.
    assert bound["4-gram"]["total"] < bound["2-gram"]["total"] + 0.5 < bound["reported"]["total"]
    assert 4 < bound["unconditional"]["total"] < 5.6


def test_measures_by_steps(small_masked, capsys):
    words = ["eval", small_masked, STARTER, "--meaning-column", "meaning"]
    words += ["--held-out-every", 10, "--num", 4, "--by-steps", "2,0", "--unconditional"]
    found = facts(capsys, *words, "--bound", 2)
    assert set(found["by_steps"]) == {"2", "as tokens", "real"} and "samples" not in found
    for reported in found["by_steps"].values():
        assert {"nats_per_token", "entropy", "distinct_2", "copies"} <= set(reported)
    assert found["by_steps"]["2"]["copies"] == 0
    assert {"reported", "unconditional"} <= set(found["bound"])
    unknown, heading, *rows = does(capsys, *words).splitlines()
    assert unknown.startswith("unknown to the vocabulary: ")
    assert heading.split() == ["steps", "nats_per_token", "entropy", "distinct_2", "copies",
                               "seconds"]  # fmt: skip
    assert [row[:9].strip() for row in rows] == ["2", "as tokens", "real"]


def test_measures_of_texts_made_from_others(small_rewriter, capsys):
    words = ["eval", small_rewriter, STARTER, "--num", 4, "--steps", 2]
    assert "--source-column" in complains(capsys, *words)
    found = facts(capsys, *words, "--source-column", "meaning", "--bound", 2)
    assert 0 <= found["samples"]["bleu"] <= 100 and "obeyed" not in found
    assert found["bound"]["reported"]["tokens"] != found["bound"]["unconditional"]["tokens"]
    assert "bleu" not in facts(capsys, *words, "--unconditional")["samples"]


def test_measures_of_running_text(small_characters, tmp_path, capsys):
    found = facts(capsys, "eval", small_characters, "--bound", 3)
    assert found["stretches"] == 3 and found["length"] == 32
    bits = found["bits_per_character"]
    assert 4 < bits["model, at most"]["mean"] < 6.2  # hardly trained; log2 of 67 is 6.07
    assert bits["5-gram, given the text before"]["mean"] < bits["5-gram"]["mean"] < 3
    path = tmp_path / "own.txt"
    path.write_text("The Eagle is a cheap pub.\n\n" * 40)
    found = facts(capsys, "eval", small_characters, path, "--held-out-ratio", 0.5, "--bound", 2)
    assert found["data"] == str(path) and found["stretches"] == 2 and "samples" not in found
    made = facts(capsys, "eval", small_characters, path, "--held-out-ratio", 0.5, "--bound", 2,
                 "--num", 3, "--by-steps", "2,0")["samples"]  # fmt: skip
    assert set(made) == {"2", "as tokens", "real"}
    # The n-gram knows the one sentence, and the model hardly anything.
    assert made["real"]["bits"] < 1 < 3 < min(made["2"]["bits"], made["as tokens"]["bits"])
    assert made["real"]["words_known"] == 1 > made["2"]["words_known"]


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["--num", "0"], "there is nothing to measure"),
        (["--num", "0", "--bound", "-1"], "there is nothing to measure"),
        (["--by-steps", "4", "--steps", "4"], "--by-steps 4: sets the steps, and so does --steps"),
        (["--by-steps", "4,-1"], "--by-steps 4,-1: must be from 1, or 0 for"),
        (["--by-steps", "4", "--num", "0", "--bound", "1"], "draws samples; set --num above 0"),
        (["--by-steps", "many"], "--by-steps many: "),
        (["no.csv"], "no such file"),
    ],
)
def test_what_cannot_be_measured(small_masked, capsys, words, reported):
    assert reported in complains(capsys, "eval", small_masked, *words)


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["--blanks", "3"], "--blanks: applies to texts that end"),
        (["--by-steps", "3", "--num", "0"], "--by-steps 3: draws samples; set --num above 0"),
        (["--by-steps", "3", "--steps", "4"], "and so does --steps 4"),
        (["--by-steps", "-1"], "--by-steps -1: must be from 1, or 0 for"),
        (["--num", "-1", "--by-steps", "2"], "set --num above 0"),
        (["--held-out-ratio", "1"], "held_out_ratio in [0, 1), got 1"),
        (["--held-out-ratio", "0"], "0 of 93585 characters are held out"),
        (["no.txt"], "no such file"),
    ],
)
def test_running_text_that_cannot_be_measured(small_characters, capsys, words, reported):
    assert reported in complains(capsys, "eval", small_characters, *words)


# ------------------------------------------------------------------------------- training


def test_previews_of_samples_are_written_while_it_trains(small_masked, small_rewriter):
    for folder, key in ((small_masked, "meaning"), (small_rewriter, "source")):
        reported = {"food": "Italian"} if key == "meaning" else SOURCE
        written = []

        class Writer:
            def add_text(self, name, text, step, written=written):
                written.append((name, len(text.splitlines()), step))

        model = md.load(folder)
        write = preview_masked(
            model, {"text": ["a pub.", "cheap food."], key: [reported, reported]}
        )
        write(Writer(), 7)
        assert written == [("original", 2, 0), ("made", 2, 7)]


def test_stretches_want_running_text(tmp_path, capsys):
    recipe = RECIPES / "smoke" / "masked_characters.yaml"
    words = ["data.examples.source.running=false", "--out", tmp_path / "run"]
    assert "set running: true" in complains(capsys, "train", recipe, *words)


def test_a_vocabulary_that_does_not_fit_the_weights(small_characters, tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(small_characters, folder)
    other = (folder / "vocabulary.json").read_text().replace('"e", ', "", 1)
    (folder / "vocabulary.json").write_text(other)
    assert str(folder / "vocabulary.json") in complains(capsys, "sample", folder)

"""Text models on the command line, as users run them."""

import json

import pytest
from commands import complains, does, facts
from program import RECIPES

from multidiff.cli.main import run

STARTER = "starter:restaurant/sentences.csv"


def test_samples_come_a_line_each(small_restaurant, capsys):
    printed = does(capsys, "sample", small_restaurant, "-n", 3, "--steps", 3, "--length", 6)
    assert len(printed.splitlines()) == 3
    again = does(capsys, "sample", small_restaurant, "-n", 3, "--steps", 3, "--length", 6)
    assert again == printed


def test_samples_as_json_with_scores(small_restaurant, small_control, capsys):
    found = facts(
        capsys, "sample", small_restaurant, "-n", 2, "--steps", 3, "--seed", 5,
        "--prompt", "food[Italian], area[riverside]", "--prompt", "food[French]",
        "--control", "food=Italian", "--control", "length=7", "--classifier", small_control,
    )  # fmt: skip
    assert [one["seed"] for one in found["outputs"]] == [5, 6, 5, 6]
    assert [one["prompt"] for one in found["outputs"]][2:] == ["food[French]"] * 2
    for one in found["outputs"]:
        assert one["words"] == 7 and 0 <= one["control"]["food=Italian"] <= 1


def test_samples_into_a_file_or_a_folder(small_restaurant, tmp_path, capsys):
    lines = does(
        capsys, "sample", small_restaurant, "-n", 2, "--steps", 2, "-o", tmp_path / "a.txt"
    )
    assert (tmp_path / "a.txt").read_text() == lines
    does(capsys, "sample", small_restaurant, "-n", 2, "--steps", 2, "-o", tmp_path / "folder")
    assert (tmp_path / "folder" / "samples.txt").read_text() == lines


def test_known_words_stay(small_restaurant, capsys):
    infill = "The [MASK] serves [MASK] food ."
    printed = does(
        capsys, "sample", small_restaurant, "-n", 4, "--steps", 3, "--infill", infill,
        "--control", "first=the", "--num-candidates", 2,
    )  # fmt: skip
    for line in printed.splitlines():
        words = line.split()
        assert words[0].rstrip(".,") == "the" and "serves" in words and line.endswith(" food.")


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["--infill", "the [MASK] zebra"], "the model does not know zebra"),
        (["--control", "food=Italian"], "needs a classifier"),
        (["--control", "food"], "write attribute=value"),
        (["--control", "length=5", "--control", "length=6"], "contradicts --control length=5"),
        (["--control", "length=5", "--length", "6"], "the lengths contradict each other"),
        (["--control", "length=many"], "a number of words"),
        (["--control", "first=the eagle"], "give one word"),
        (["--infill", "a [MASK]", "--control", "first=the"], "give one word, as in --infill"),
        (["--length", "0"], "this model writes 1 to 31 tokens"),
        (["--length", "32"], "this model writes 1 to 31 tokens"),
        (["--num-candidates", "0"], "--num-candidates 0: from 1 to 1000"),
        (["--steps", "0"], "--steps 0: from 1"),
        (["--temperature", "0"], "--temperature 0: above 0; 1 is as learned"),
        (["--guidance-scale", "-1"], "--guidance-scale -1: 0 or more"),
        (["--control-strength", "-1,1,1"], "-1,1,1: must be updates, rate and fluency"),
        (["--control-strength", "1.5,1,1"], "--control-strength 1.5,1,1"),
        (["--control-strength", "1"], "--control-strength 1: "),
        (["--prompt", "food[Klingon]"], "food=Klingon: unknown value of food"),
        (["--prompt", "foods[Italian]"], "foods=Italian: unknown attribute; did you mean food"),
        (["--prompt", "Italian"], "'Italian' is not a meaning"),
        (["--sampler", "eulr"], "--sampler eulr: did you mean euler"),
        (["--mask-image", "x"], "--mask-image: no such option here; expected one of --"),
    ],
)
def test_what_cannot_be_sampled(small_restaurant, capsys, words, reported):
    assert reported in complains(capsys, "sample", small_restaurant, *words)


@pytest.mark.parametrize(
    ("control", "reported"),
    [
        ("food=Klingon", "food=Klingon: unknown value of food; expected one of Chinese"),
        ("foods=Italian", "foods=Italian: unknown attribute; did you mean food?"),
    ],
)
def test_controls_that_do_not_exist(small_restaurant, small_control, capsys, control, reported):
    words = ["--classifier", small_control, "--control", control]
    assert reported in complains(capsys, "sample", small_restaurant, *words)


def test_a_usual_classifier_is_taken_and_missed_only_where_it_is_needed(
    small_restaurant, small_control, tmp_path, capsys
):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(small_restaurant, folder)
    recipe = (folder / "recipe.yaml").read_text()
    words = ["sample", folder, "-n", 2, "--steps", 2]
    (folder / "recipe.yaml").write_text(recipe.replace("classifier: null", "classifier: gone/x"))
    assert len(does(capsys, *words).splitlines()) == 2
    assert "needs a classifier" in complains(capsys, *words, "--control", "food=Italian")
    reported = f"classifier: {small_control}"
    (folder / "recipe.yaml").write_text(recipe.replace("classifier: null", reported))
    found = facts(capsys, *words, "--control", "food=Italian")
    assert "food=Italian" in found["outputs"][0]["control"]


def test_a_model_of_another_kind_does_not_control(small_restaurant, capsys):
    words = ["--classifier", "digits", "--control", "food=Italian"]
    reported = complains(capsys, "sample", small_restaurant, *words)
    assert "--classifier digits: is an ImageDiffusion, needs a TextClassifier" in reported


def test_measures(small_restaurant, capsys):
    found = facts(
        capsys, "eval", small_restaurant, "--num", 60, "--steps", 2, "--bound", 2, "--blanks", 5
    )
    for name in ("samples", "real"):
        assert {"nats_per_token", "distinct_2", "entropy", "self_bleu"} <= set(found[name])
    # Almost untrained and in two steps it writes nonsense; of the real texts 1 % are outliers.
    assert found["samples"]["outliers"] > 0.5 and found["real"]["outliers"] < 0.05
    assert found["samples"]["nats_per_token"] > found["real"]["nats_per_token"] + 1
    assert set(found["obeyed"]) == set(found["obeyed_by_real"])
    assert found["bound"]["total"] > 0 and found["bound"]["length"] > 0
    for filled in found["blanks"].values():
        assert filled["known_kept"] == 1
    assert found["blanks"]["real"]["blanks_as_real"] == 1


def test_steering_is_measured(small_restaurant, small_control, capsys):
    found = facts(
        capsys,
        "eval",
        small_control,
        "--num",
        0,
        "--steps",
        2,
        "--steered",
        small_restaurant,
        "--control",
        "area,food+area",
        "--each",
        2,
        "--control-strength",
        "1,2,0",
        "--held-out-every",
        0,
    )
    targets = found["control"]["targets"]
    assert len(targets) == 2 + 7 and "food=Chinese, area=city centre" in targets
    # Some hundred sentences in two hundred words teach the judge little, but something.
    assert found["classifier"]["familyFriendly"] > 0.4


def test_being_told_is_measured_beside_being_pulled(small_restaurant, small_control, capsys):
    words = [
        "eval", small_control, "--num", 0, "--steps", 2, "--steered", small_restaurant,
        "--control", "area", "--each", 2, "--held-out-every", 0,
    ]  # fmt: skip
    reported = facts(capsys, *words, "--guidance-scale", "2")["control"]
    pulled = facts(capsys, *words)["control"]
    assert set(reported["targets"]) == set(pulled["targets"])
    assert reported["nats_without"] == pulled["nats_without"]
    assert reported["mean"]["nats_per_token"] != pulled["mean"]["nats_per_token"]


def test_measures_of_a_split_tell_copies(small_restaurant, capsys):
    found = facts(
        capsys, "eval", small_restaurant, STARTER, "--meaning-column", "meaning", "--num", 3,
        "--steps", 2, "--held-out-every", 4, "--unconditional",
    )  # fmt: skip
    assert found["samples"]["copies"] == 0 and 0 <= found["real"]["copies"] <= 1
    assert "bleu" not in found["samples"] and "obeyed" not in found


def test_a_language_model_judges_too(small_restaurant, capsys, tmp_path):
    reported = complains(capsys, "eval", small_restaurant, "--num", 2, "--steps", 1,
                     "--language-model", tmp_path / "none")  # fmt: skip
    assert "no such folder" in reported


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["--num", "0", "--bound", "-1"], "there is nothing to measure"),
        (["--num", "0"], "there is nothing to measure"),
        (["no.csv"], "no such file"),
    ],
)
def test_what_cannot_be_measured(small_restaurant, capsys, words, reported):
    assert reported in complains(capsys, "eval", small_restaurant, *words)


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["--control", "color"], "--control color: expected one of name, eatType"),
        ([], "name the attributes too"),
    ],
)
def test_what_cannot_be_steered(small_restaurant, small_control, capsys, words, reported):
    words = ["--num", "0", "--steered", small_restaurant, *words]
    assert reported in complains(capsys, "eval", small_control, *words)


def test_classifiers_are_measured(small_control, capsys):
    found = facts(capsys, "eval", small_control, "--num", 40)
    assert found["texts"] == 40
    for ratios in found["right"].values():
        assert all(0 <= ratio <= 1 for ratio in ratios.values())


def test_training_on_bad_texts_is_refused(tmp_path, capsys):
    recipe = RECIPES / "smoke" / "restaurant.yaml"
    empty, binary = tmp_path / "empty.csv", tmp_path / "binary.csv"
    empty.write_text("")
    binary.write_bytes(b"meaning,text\n\xff\xfe\x00,a")
    good = tmp_path / "wrong.csv"
    good.write_text('meaning,text\n"food[Klingon]",the food is\n"food[Italian]",the food\n')
    for path, reported in ((empty, "is empty"), (binary, "is not UTF-8")):
        words = [f"data.examples.source.path={path}", f"validation.examples.source.path={path}"]
        line = complains(capsys, "train", recipe, *words, "--out", tmp_path / "run")
        assert reported in line and str(path) in line
    words = ["data.examples.source.held_out_every=2", f"data.examples.source.path={good}"]
    assert run(["train", str(recipe), *words, "--out", str(tmp_path / "run2")]) == 2
    assert "food=Klingon" in capsys.readouterr().err


def test_a_vocabulary_that_does_not_fit_the_weights(small_restaurant, tmp_path, capsys):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(small_restaurant, folder)
    kept = json.loads((folder / "vocabulary.json").read_text())
    kept["pieces"].pop()
    kept["counts"].pop()
    (folder / "vocabulary.json").write_text(json.dumps(kept))
    assert "vocabulary of size 199, but the model's is 200" in complains(capsys, "sample", folder)

"""The shipped digits distilled by a recipe, from the command line."""

import torch
from commands import complains, does, facts
from program import RECIPES, trained

import multidiff

SMOKE = RECIPES / "smoke" / "digits_distilled.yaml"
STUDENT = "digits_distilled"


def test_a_student_is_trained_and_samples_in_1_2_and_4_steps(tmp_path, capsys, caplog):
    folder = trained(tmp_path / "run", STUDENT, steps=2)
    student, teacher = multidiff.load(folder), multidiff.load("digits")
    own, its = student.state_dict(), teacher.state_dict()
    changed = {name for name in own if not torch.equal(own[name], its[name])}
    assert changed and all(name.startswith("denoiser.") for name in changed)
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert len(multidiff.load(checkpoint).state_dict()) == len(own)  # without the teacher
    common = ["sample", folder, "--prompt", "the digit 7", "-n", 2, "-o", tmp_path / "sevens"]
    assert facts(capsys, *common)["steps"] == "2"
    for steps in (1, 4):
        made = facts(capsys, *common, "--steps", steps)
        assert (made["sampler"], made["guidance_scale"]) == ("lcm", "1")
    assert not caplog.messages
    does(capsys, *common, "--steps", 3, "--sampler", "dpm++", "--guidance-scale", 1.5)
    assert [one.split(":")[0] for one in caplog.messages] == [
        "--guidance-scale 1.5",
        "--steps 3",
        "--sampler dpm++",
    ]


def test_the_shipped_student(tmp_path, capsys):
    home = multidiff.load("digits-fast").home
    assert (home / "model.safetensors").stat().st_size < 2.5e6  # the difference from digits
    common = ["sample", "digits-fast", "--prompt", "8", "-o", tmp_path / "eights"]
    made = facts(capsys, *common, "-n", 2)
    assert (made["steps"], made["sampler"], made["guidance_scale"]) == ("2", "lcm", "1")


def test_what_cannot_be_distilled(tmp_path, capsys):
    wrong = [
        (("weights:\n  - {model: digits}\n", ""), "the teacher is missing"),
        (("{model: digits}", "{model: nowhere}"), "no model 'nowhere'"),
        (("prediction: v", "prediction: epsilon"), "prediction is VPrediction, the recipe's Eps"),
        (("BetaSchedule.cosine", "BetaSchedule.linear"), "another noise schedule"),
        (("teacher_steps: 4", "teacher_steps: 0"), "teacher_steps 0: must be at least 1"),
        (("guidance_scale: 1.5, steps: 4", "guidance_scale: 1.5, steps: 0"), "steps 0: must be"),
        (("points: 2", "points: 3"), "points 3: must divide teacher_steps 4"),
    ]
    for change, said in wrong:
        recipe, text = tmp_path / "wrong.yaml", SMOKE.read_text()
        assert change[0] in text
        recipe.write_text(text.replace(*change))
        assert said in complains(capsys, "train", recipe, "--out", tmp_path / "run")
        assert not (tmp_path / "run" / "checkpoints").exists()

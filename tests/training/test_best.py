"""Early stopping, and the checkpoint of the best validation, which is never deleted."""

import json
import shutil

import pytest
import torch
from commands import complains, does, facts
from test_resuming import IMAGES, TRAINER, fill
from test_trainer import fit, lines_of, weights_of
from toys import Ring, ring_task

import multidiff as md
from multidiff.models.weights import read_tensors
from multidiff.training.best import BestSoFar, EarlyStopping
from multidiff.training.checkpoints import read
from multidiff.training.trainer import Trainer
from multidiff.utils.errors import InputError

OFTEN = {"validate_every": 1, "validation_batches": 1, "learning_rate": 0.3}  # it goes up and down


def test_patience_counts_validations_that_gain_less_than_min_delta():
    losses = [1.0, 0.8, 0.75, 0.74, 0.5, 0.49, 0.48, 0.47]
    rule = EarlyStopping(metric="denoising", patience=3, min_delta=0.1)
    found, waited = BestSoFar(rule, "denoising"), []
    for step, loss in enumerate(losses, 1):
        assert found.see(step, {"denoising": loss})
        waited.append(found.waited)
    assert waited == [0, 0, 1, 2, 0, 1, 2, 3]
    assert "has not improved in 3 validations" in found.reason
    assert found.best_step == 8
    assert not found.see(9, {"denoising": float("nan")})


def test_a_run_stops_early_and_resumes_with_its_counters(tmp_path):
    rule = {"early_stopping": EarlyStopping(metric="denoising", patience=4), **OFTEN}
    fit(tmp_path / "whole", 200, **rule)
    held_out = [line["denoising"] for line in lines_of(tmp_path / "whole", "held-out")]
    assert 5 < len(held_out) < 200
    assert min(held_out) == held_out[-5]  # four more validations
    fit(tmp_path / "halves", len(held_out) - 2, **rule)
    fit(tmp_path / "halves", 200, resume=True, **rule)
    assert lines_of(tmp_path / "halves", "held-out") == lines_of(tmp_path / "whole", "held-out")
    before = sorted((tmp_path / "whole" / "checkpoints").iterdir())
    fit(tmp_path / "whole", 200, resume=True, **rule)  # has ended already
    assert sorted((tmp_path / "whole" / "checkpoints").iterdir()) == before
    longer = {**rule, "early_stopping": EarlyStopping(metric="denoising", patience=6)}
    fit(tmp_path / "whole", 200, resume=True, **longer)
    assert len(lines_of(tmp_path / "whole", "held-out")) > len(held_out)


def test_the_best_checkpoint_stays(tmp_path):
    fit(tmp_path, 30, keep_best="denoising", keep_checkpoints=1, **OFTEN)
    losses = {line["step"]: line["denoising"] for line in lines_of(tmp_path, "held-out")}
    step = min(losses, key=lambda one: losses[one])
    assert step < 30
    names = sorted(one.name for one in (tmp_path / "checkpoints").iterdir())
    assert names == ["00000030", "best"]
    best = read(tmp_path / "checkpoints" / "best")
    assert best.step == step
    assert best.numbers["keep_best"] == {"metric": "denoising", "best": losses[step], "step": step}
    same = fit(tmp_path / "same", step, **OFTEN)
    weights = dict(same.named_parameters())
    assert all(torch.equal(weights[name], value) for name, value in best.tensors["ema"].items())


def test_best_and_stopping_leave_the_weights(tmp_path):
    plain = fit(tmp_path / "plain", 10)
    rule = EarlyStopping(metric="denoising", patience=100)
    assert torch.equal(
        weights_of(plain),
        weights_of(fit(tmp_path / "a", 10, early_stopping=rule, keep_best="denoising")),
    )


def test_wrong_metrics_are_found_before_the_first_step(tmp_path):
    with pytest.raises(InputError, match="no validation loss 'denoisin'; name one of denoising"):
        fit(tmp_path / "a", 10, keep_best="denoisin")
    assert not (tmp_path / "a" / "log.jsonl").exists()
    task, batches = ring_task(), md.Batches(Ring(), 8)
    with pytest.raises(InputError, match="keep_best: needs validation data"):
        Trainer(steps=1, keep_best="denoising").fit(task, batches, out=tmp_path / "b")
    with pytest.raises(InputError, match="keep_best: needs a folder"):
        Trainer(steps=1, keep_best="denoising").fit(task, batches, batches)
    with pytest.raises(ValueError, match="patience 0: must be at least 1"):
        EarlyStopping(metric="denoising", patience=0)


def write_recipe(home):
    """A recipe with a section for validation, and its data."""
    fill(home / "data")
    text = IMAGES + IMAGES.partition("data:")[2].join(["validation:", TRAINER])
    (home / "recipe.yaml").write_text(text.replace("FOLDER", str(home / "data")))
    return str(home / "recipe.yaml")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run by a recipe of four steps, validated and saved at each."""
    home = tmp_path_factory.mktemp("best")
    write_recipe(home)
    words = ["train", str(home / "recipe.yaml"), "--out", str(home / "run"), *SETTINGS]
    assert md.cli.main.run(words) == 0
    return home


SETTINGS = (
    *("model.process.schedule.steps=30", "trainer.steps=4", "trainer.save_every=1"),
    *("trainer.validate_every=1", "trainer.trackers=[]"),
    *("trainer.keep_best=denoising", "trainer.early_stopping={metric: denoising, patience: 9}"),
)


def test_checkpoints_and_raw_weights_are_loaded_by_name(trained):
    run = trained / "run"
    folder = run / "checkpoints"

    def weight(model):
        return model.state_dict()["denoiser.conv_in.weight"]

    def stored(name, stem):
        return read_tensors(folder / name / f"{stem}.safetensors")[0]["denoiser.conv_in.weight"]

    assert torch.equal(weight(md.load(run)), stored("00000004", "ema"))
    assert torch.equal(weight(md.load(run, weights="raw")), stored("00000004", "model"))
    assert torch.equal(weight(md.load(run, checkpoint=2)), stored("00000002", "ema"))
    for name in ("best", "00000003"):
        assert torch.equal(weight(md.load(run, checkpoint=name)), stored(name, "ema"))
        raw = md.load(folder / name, weights="raw")
        assert torch.equal(weight(raw), stored(name, "model"))
        assert not torch.equal(stored(name, "model"), stored(name, "ema"))
    with pytest.raises(InputError, match="no checkpoint 7; it has 00000002, 00000003"):
        md.load(run, checkpoint=7)
    with pytest.raises(InputError, match="model: has no checkpoints"):
        md.load(run / "model", weights="raw")
    with pytest.raises(InputError, match="expected 'ema', 'raw', or a width"):
        md.load(run, weights="mean")


def test_rules_may_change_when_a_run_is_resumed(trained, capsys):
    words = ["train", str(trained / "recipe.yaml"), "--out", str(trained / "run"), "--resume"]
    does(capsys, *words, SETTINGS[0], *SETTINGS[2:4], "trainer.trackers=[]", "trainer.steps=5")
    state = json.loads((trained / "run" / "checkpoints" / "00000005" / "state.json").read_text())
    assert "keep_best" not in state["numbers"]


def test_a_recipe_without_validation(trained, capsys, tmp_path):
    text = (trained / "recipe.yaml").read_text()
    start, end = text.index("validation:"), text.index("trainer:")
    (tmp_path / "r.yaml").write_text(text[:start] + text[end:])
    for command in ("check", "train"):
        said = complains(capsys, command, str(tmp_path / "r.yaml"), SETTINGS[5])
        assert "trainer.keep_best: needs validation data" in said


def test_all_checkpoints_are_measured_side_by_side(trained, capsys, tmp_path):
    """Each as it is alone; a damaged one is a fault, and the others are measured."""
    run = tmp_path / "run"
    shutil.copytree(trained / "run", run)
    options = (str(trained / "data"), "--num", "0", "--bits", "2")
    names = sorted(one.name for one in (run / "checkpoints").iterdir())
    found = facts(capsys, "eval", run, *options, "--all-checkpoints")["checkpoints"]
    assert sorted(found) == names
    alone = facts(capsys, "eval", run / "checkpoints" / names[0], *options)
    assert found[names[0]]["bits_per_dim"] == alone["bits_per_dim"]
    assert len({one["bits_per_dim"]["total"] for one in found.values()}) > 1
    with (run / "checkpoints" / names[0] / "ema.safetensors").open("ab") as file:
        file.write(b"x")
    words = ["eval", str(run), *options, "--all-checkpoints"]
    assert md.cli.main.run(words) == 2
    printed = capsys.readouterr()
    heading, *rows = printed.out.splitlines()
    assert [row.split()[0] for row in rows] == names[1:]
    assert "bits_per_dim.total" in heading
    assert names[0] in printed.err
    assert "no such option" in complains(capsys, *words, "--nonsense")
    assert "has no checkpoints" in complains(capsys, "eval", "digits", "--all-checkpoints")

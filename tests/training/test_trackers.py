"""W&B and trackio receive what TensorBoard does, and a resumed run continues theirs."""

import json
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch
from commands import complains
from program import RECIPES
from test_trainer import QUICK, lines_of
from toys import Ring, ring_task

import multidiff as md
from multidiff.training.trackers import MediaTracker
from multidiff.utils.errors import InputError


class Recorder(ModuleType):
    """A package with the interface of wandb that keeps what it receives, as its server would."""

    def __init__(self, name, fails=False):
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)
        self.opened, self.logged, self.finished, self.fails = [], [], 0, fails

    def init(self, **options):
        self.opened.append(options)
        return self

    def log(self, values, step):
        if self.fails:
            raise ConnectionError("no network")
        assert not self.logged or step >= self.logged[-1][0]  # W&B drops others
        self.logged += [(step, tag, value) for tag, value in values.items()]

    def finish(self):
        self.finished += 1

    def Image(self, picture):  # noqa: N802
        return picture.size, picture.mode, picture.getpixel((0, 0))

    def Audio(self, samples, sample_rate):  # noqa: N802
        return samples.dtype.name, samples.tolist(), sample_rate

    def Html(self, text):  # noqa: N802
        return text


@pytest.fixture
def packages(monkeypatch):
    found = {name: Recorder(name) for name in ("wandb", "trackio")}
    for name, package in found.items():
        monkeypatch.setitem(sys.modules, name, package)
    return found


def fit(folder, steps, trackers, resume=False):
    def preview(writer, step):
        writer.add_text("text", "a <b> " * 2, 0)
        writer.add_image("image", torch.tensor([0.0, 1.0]).expand(3, 4, 2), step)
        writer.add_image("shades", torch.full((1, 4, 2), 0.5), step)
        writer.add_audio("sound", torch.tensor([[0.5, -2.0]]), step, 8000)

    settings = {**QUICK, "validate_every": 4, "save_every": 4}
    data = md.Batches(Ring(), 8)
    md.Trainer(steps=steps, trackers=trackers, **settings).fit(
        ring_task(), data, data, out=folder, resume=resume, preview=preview
    )


def test_every_tracker_receives_values_and_previews(packages, tmp_path):
    fit(tmp_path / "run", 4, ["tensorboard", "wandb", "trackio"])
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    expected = [
        (line["step"], f"{line['group']}/{name}", value)
        for line in lines_of(tmp_path / "run") + lines_of(tmp_path / "run", "held-out")
        for name, value in line.items()
        if name not in ("step", "group")
    ]
    for package in packages.values():
        numbers = [one for one in package.logged if "/" in one[1]]
        assert numbers == expected
        media = {tag: (step, value) for step, tag, value in package.logged if "/" not in tag}
        assert media == {
            "text": (4, "<pre>a &lt;b&gt; a &lt;b&gt; </pre>"),
            "image": (4, ((2, 4), "RGB", (0, 0, 0))),
            "shades": (4, ((2, 4), "L", 128)),
            "sound": (4, ("int16", [16384, -32767], 8000)),
        }
        assert package.opened[0]["config"]["trainer"]["steps"] == 4
        assert package.finished == 1


def test_a_resumed_run_continues_the_same_run(packages, tmp_path):
    fit(tmp_path / "a", 4, ["wandb", "trackio"])
    fit(tmp_path / "a", 6, ["wandb", "trackio"], resume=True)
    fit(tmp_path / "b" / "a", 4, ["wandb", "trackio"])
    assert not (tmp_path / "a" / "tensorboard").exists()
    for name, package in packages.items():
        key = "id" if name == "wandb" else "name"
        first, resumed, other = (one[key] for one in package.opened)
        assert first == resumed != other
        assert all(one["resume"] == "allow" for one in package.opened)
    assert {*json.loads((tmp_path / "a" / "trackers.json").read_text())} == {"wandb", "trackio"}


def test_a_failing_tracker_does_not_end_the_run(packages, tmp_path, caplog):
    packages["wandb"].fails = True
    fit(tmp_path, 4, ["tensorboard", "wandb", "trackio"])
    assert [one.getMessage() for one in caplog.records] == [
        "wandb: no network; the run goes on without it"
    ]
    assert packages["trackio"].logged
    assert len(lines_of(tmp_path)) == 4


def test_a_tracker_that_cannot_be_opened(packages, tmp_path, monkeypatch):
    def refuse(**options):
        raise RuntimeError("api_key not configured")

    packages["wandb"].init = refuse
    with pytest.raises(InputError, match=r"wandb: .*api_key not configured; run `wandb login`"):
        fit(tmp_path, 4, ["wandb"])
    assert not (tmp_path / "checkpoints").exists()


def test_a_missing_package_is_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    words = ("train", RECIPES / "smoke" / "digits_pixels.yaml", "trainer.trackers=[wandb]")
    said = complains(capsys, *words, "--out", tmp_path / "run")
    assert 'needs wandb, which is not installed: pip install "multidiff[wandb]"' in said
    with pytest.raises(ValueError, match=r"unknown tracker 'wanb'.*did you mean wandb"):
        md.Trainer(steps=1, trackers=["wanb"])


def test_offline_weights_and_biases(tmp_path, monkeypatch):
    """The real package, where it is installed."""
    pytest.importorskip("wandb", reason="an optional extra")
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker = MediaTracker("wandb", tmp_path, "abcdef012345", {"trainer": {"steps": 1}})
    tracker.add_scalar("train/loss", 1.0, 1)
    tracker.add_audio("sound", torch.zeros(1, 80), 1, 8000)
    tracker.add_image("image", torch.zeros(3, 4, 4), 1)
    tracker.add_text("text", "a", 0)
    tracker.close()
    assert list((tmp_path / "wandb").glob("offline-run-*-abcdef012345/*.wandb"))

"""Callbacks: when they are called, what they cannot disturb, and how they end a run."""

import random
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from commands import complains, does
from test_best import write_recipe
from test_trainer import QUICK, fit, lines_of, weights_of
from toys import Ring, ring_task

import multidiff as md
from multidiff.training.callbacks import Callback, Callbacks
from multidiff.utils.errors import InputError


class Watch(Callback):
    """Notes each call; draws random numbers and disturbs the modes as careless code would."""

    def __init__(self, draws: bool = False, fails_at: int = 0, stops_at: int = 0):
        self.calls, self.drawn = [], []
        self.draws, self.fails_at, self.stops_at = draws, fails_at, stops_at

    def on_train_begin(self, state):
        self.calls.append(("begin", state.step))

    def on_step_end(self, state):
        self.calls.append(("step", state.step))
        if self.draws:
            state.task.eval()  # would leave dropout off
            self.drawn.append((float(torch.rand(())), np.random.rand(), random.random()))
        if state.step == self.fails_at:
            raise ZeroDivisionError("division by zero")
        if state.step == self.stops_at:
            state.stop("Watch")

    def on_log(self, state, values):
        self.calls.append(("log", state.step, values["denoising"]))

    def on_validation(self, state, losses):
        with state.averaged():
            assert not state.task.training
        self.calls.append(("validation", state.step, losses["denoising"]))

    def on_save(self, state, path):
        assert (path / "state.json").is_file()
        self.calls.append(("save", state.step, path.name))

    def on_train_end(self, state):
        self.calls.append(("end", state.step))


class Counter(Callback):
    """Counts steps alone."""

    steps = 0

    def on_step_end(self, state):
        Counter.steps += 1


def test_moments_come_in_order(tmp_path):
    watch = Watch()
    fit(tmp_path, 10, callbacks=[watch])
    of = {kind: [one[1:] for one in watch.calls if one[0] == kind] for kind, *_ in watch.calls}
    assert of["begin"] == [(0,)]
    assert of["end"] == [(10,)]
    assert of["step"] == [(step,) for step in range(1, 11)]
    assert of["log"] == [(line["step"], line["denoising"]) for line in lines_of(tmp_path)]
    held_out = lines_of(tmp_path, "held-out")
    assert of["validation"] == [(line["step"], line["denoising"]) for line in held_out]
    assert of["save"] == [(5, "00000005"), (10, "00000010")]


def test_a_callback_does_not_change_the_run(tmp_path):
    """Neither by draws nor by modes; its own draws are a function of the step."""
    watch = Watch(draws=True)
    watched = fit(tmp_path / "watched", 10, callbacks=[watch])
    assert torch.equal(weights_of(watched), weights_of(fit(tmp_path / "plain", 10)))
    again = Watch(draws=True)
    fit(tmp_path / "again", 5, callbacks=[again])
    fit(tmp_path / "again", 10, callbacks=[again], resume=True)
    assert again.drawn == watch.drawn
    assert len({one for draws in watch.drawn for one in draws}) == 30


def test_draws_leave_the_generators_as_they_were():
    watch, state = Watch(draws=True), SimpleNamespace(step=0, task=torch.nn.Linear(1, 1))
    called = Callbacks([watch], state, torch.device("cpu"), lambda step: step, bool)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    assert called("on_step_end", 1)
    assert not called("on_something_else", 1)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()


def test_one_that_raises_ends_the_run_saved(tmp_path):
    failing = Watch(fails_at=7)
    with pytest.raises(InputError) as caught:
        fit(tmp_path / "a", 10, callbacks=[failing])
    message = r"step 7: callback Watch.on_step_end: ZeroDivisionError (test_callbacks.py:"
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "a" / "checkpoints" / "00000007").is_dir()
    resumed = fit(tmp_path / "a", 10, resume=True)
    assert torch.equal(weights_of(resumed), weights_of(fit(tmp_path / "b", 10)))


def test_one_may_stop_the_run(tmp_path):
    task, batches = ring_task(), md.Batches(Ring(), 8)
    watch = Watch(stops_at=7)
    settings = {**QUICK, "log_every": 4}
    done = md.Trainer(steps=10, callbacks=[watch], **settings).fit(task, batches, out=tmp_path)
    assert done.step == 7
    assert [line["step"] for line in lines_of(tmp_path)] == [4, 7]
    assert done.losses["denoising"] == lines_of(tmp_path)[-1]["denoising"]
    assert (tmp_path / "checkpoints" / "00000007").is_dir()
    assert watch.calls[-1] == ("end", 7)


def test_recipes_name_them_by_path(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "watching", sys.modules[__name__])
    recipe, run = write_recipe(tmp_path), str(tmp_path / "run")
    before = Counter.steps
    words = ["train", recipe, "--out", run, "trainer.trackers=[]"]
    does(capsys, *words, "trainer.callbacks=[{use: 'watching:Counter'}]")
    assert Counter.steps == before + 2
    does(capsys, *words, "--resume", "trainer.steps=3")  # a harmless change
    for callback, fault in {
        "{use: 'watching:Watch', fails_at: 3, draw: true}": "Watch has no 'draw'; did you mean",
        "{use: 'watching:Missing'}": "watching:Missing: AttributeError: module 'test_callbacks'",
        "{use: 'nowhere.at:All'}": "nowhere.at:All: No module named 'nowhere'",
        "{use: 'os:system'}": "os:system is not a Callback",
        "{use: UNet}": "UNet is not a Callback",
    }.items():
        said = complains(capsys, "check", recipe, f"trainer.callbacks=[{callback}]")
        assert fault in said, said
    said = complains(capsys, "check", recipe, "data={use: 'watching:Counter'}")
    assert "unknown component 'watching:Counter'" in said  # a path is for callbacks alone
    with pytest.raises(ValueError, match="Ring must be a subclass of Callback"):
        md.Trainer(steps=1, callbacks=[Ring()])


def test_a_model_needs_no_callbacks_of_its_training(tmp_path, capsys, monkeypatch):
    """Their module may be missing where the model is used."""
    monkeypatch.setitem(sys.modules, "watching", sys.modules[__name__])
    recipe, run = write_recipe(tmp_path), str(tmp_path / "run")
    options = ("trainer.trackers=[]", "trainer.callbacks=[{use: 'watching:Counter'}]")
    does(capsys, "train", recipe, "--out", run, *options)
    monkeypatch.delitem(sys.modules, "watching")
    assert md.load(run) is not None
    does(capsys, "convert", run, tmp_path / "copy")
    said = complains(capsys, "convert", run, tmp_path / "other", "--to", "nothing")
    assert "watching" not in said

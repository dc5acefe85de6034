"""The network as a program of torch.export: levels as inputs, any size, the same sound."""

import json
from itertools import pairwise

import pytest
import torch
from commands import complains, facts
from sounds import speech

import multidiff
from multidiff.core.random import placed_normal
from multidiff.models.program import FACTS, Program, export_program
from multidiff.utils.errors import InputError


def sampled(program, about, noise, mel):
    """DDIM as a reader of the file would write it."""
    state, levels = noise, about["levels"]
    for (time, alpha, sigma), (_, next_alpha, next_sigma) in pairwise(levels):
        one = torch.ones(1)
        v = program(xt=state, time=time * one, alpha=alpha * one, sigma=sigma * one, mel=mel)
        x0, eps = alpha * state - sigma * v, sigma * state + alpha * v
        state = next_alpha * x0 + next_sigma * eps
    return state


def test_a_program_makes_the_models_sound(tmp_path, capsys, small_vocoder):
    path = tmp_path / "a.pt2"
    reported = facts(capsys, "export", small_vocoder, path)
    assert reported["error"] < 1e-5 and reported["inputs"][0] == "xt"
    kept = {FACTS: ""}
    program = torch.export.load(path, extra_files=kept).module()
    about = json.loads(kept[FACTS])
    model = multidiff.load(small_vocoder)
    mel = model.preset.mel(speech("LJ80-07", 1.0)[:, : 256 * 61])
    plan = model.plan(projections=0, final_projections=0)
    assert about["levels"] == [
        [float(part) for part in level.parts()] for level in model.process.levels(plan.times)
    ]
    starts = []
    wave = model.synthesize(mel, plan=plan, on_step=lambda step: starts.append(step.state))
    noise = placed_normal(model.domain.state_shape(1, 61)[1:], 0, 0)[None]
    state = sampled(program, about, noise, mel)
    torch.testing.assert_close(state, starts[-1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model.domain.to_wave(state, mel), wave, atol=1e-4, rtol=1e-3)


def test_refusals(tmp_path, capsys, small_vocoder):
    assert "written as .pt2" in complains(capsys, "export", small_vocoder, tmp_path / "a.onnx")
    assert "has no program" in complains(capsys, "export", "masked", tmp_path / "a.pt2")


def test_a_program_that_differs_is_not_kept(tmp_path):
    class Uneven(torch.nn.Module):
        calls = 0

        def forward(self, x):
            Uneven.calls += 1
            return x * (1 if Uneven.calls <= 2 else 1.01)

    class Model:
        def program(self):
            one, two = torch.ones(2, 3), torch.ones(3, 3)
            return Program(Uneven(), {"x": one}, {"x": two}, {"x": {0: torch.export.Dim("b")}})

    with pytest.raises(InputError, match="differs from the model's"):
        export_program(Model(), tmp_path / "a.pt2")
    assert not list(tmp_path.iterdir())


def test_a_program_of_no_numbers_is_not_kept(tmp_path):
    class Times(torch.nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def forward(self, x):
            return x * self.factor

    class Model:
        def __init__(self, factor):
            one, two = torch.ones(2, 3), torch.ones(3, 3)
            shapes = {"x": {0: torch.export.Dim("b")}}
            self.program = lambda: Program(Times(factor), {"x": one}, {"x": two}, shapes)

    with pytest.raises(InputError, match="differs from the model's by nan"):
        export_program(Model(float("nan")), tmp_path / "a.pt2")
    assert not list(tmp_path.iterdir())
    assert export_program(Model(0.0), tmp_path / "a.pt2").facts["error"] == 0

"""``precision: auto``: bfloat16 where it is measured faster, and the same losses in it."""

import json

import pytest
import torch
from toys import Ring, ring_task

import multidiff as md
from multidiff.training import precision as choice
from multidiff.training.precision import computes_in_bfloat16, cpu_gains_by_bfloat16
from multidiff.utils.errors import InputError


@pytest.fixture
def measured(monkeypatch):
    """A CPU that gains, of a given time for a product; the environment says nothing."""
    monkeypatch.delenv(choice.VARIABLE)
    cpu_gains_by_bfloat16.cache_clear()

    def measure(product=2.0, convolution=2.0, seconds=1e-5):
        gains = iter((product, convolution))
        monkeypatch.setattr(choice, "_seconds", lambda *call: seconds)
        monkeypatch.setattr(choice, "_gain", lambda *call: next(gains))

    yield measure
    cpu_gains_by_bfloat16.cache_clear()


def linear(weights):
    return torch.nn.Linear(weights, 1, bias=False, device="meta")


@pytest.mark.parametrize(
    ("gains", "wanted"),
    [
        ({}, True),
        ({"product": 1.2}, False),
        ({"convolution": 0.9}, False),
        ({"seconds": 0.1}, False),  # emulated, as with AVX2 alone
    ],
)
def test_auto_takes_what_is_measured_faster(measured, gains, wanted):
    measured(**gains)
    assert computes_in_bfloat16("auto", linear(choice.FEWEST_WEIGHTS)) is wanted


def test_small_networks_are_not_measured(measured):
    measured()
    assert not computes_in_bfloat16("auto", linear(choice.FEWEST_WEIGHTS - 1))
    assert cpu_gains_by_bfloat16.cache_info().currsize == 0


def test_a_measurement_returns_gains_of_this_cpu(monkeypatch):
    monkeypatch.delenv(choice.VARIABLE)
    before = torch.get_rng_state()
    assert choice._gain(torch.mm, torch.ones(8, 8), torch.ones(8, 8)) > 0
    assert isinstance(cpu_gains_by_bfloat16(), bool) and torch.equal(before, torch.get_rng_state())


def test_the_variable_says_what_auto_means(monkeypatch):
    for value, wanted in (("bf16", True), ("fp32", False)):
        monkeypatch.setenv(choice.VARIABLE, value)
        assert computes_in_bfloat16("auto") is wanted
        assert computes_in_bfloat16("bf16") and not computes_in_bfloat16("fp32")
    monkeypatch.setenv(choice.VARIABLE, "fp16")
    with pytest.raises(InputError, match="=fp16: set fp32 or bf16"):
        computes_in_bfloat16("auto")


def fit(monkeypatch, out, steps, auto, **more):
    monkeypatch.setenv(choice.VARIABLE, auto)
    options = {"log_every": 1, "save_every": steps, "learning_rate": 1e-3, **more}
    return md.Trainer(steps=steps, **options).fit(
        ring_task(), md.Batches(Ring(), 8), out=out, resume=steps > 4, allow_changed=["recipe"]
    )


def losses_of(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["denoising"] for line in lines if "denoising" in line]


def test_the_loss_is_that_of_float32_within_rounding(monkeypatch, tmp_path):
    for auto in ("fp32", "bf16"):
        fit(monkeypatch, tmp_path / auto, 4, auto)
    single, half = losses_of(tmp_path / "fp32"), losses_of(tmp_path / "bf16")
    assert half == pytest.approx(single, rel=0.02) and half != single


def test_a_run_that_began_in_float32_goes_on_in_it(monkeypatch, tmp_path):
    """Whatever CPU it goes on: resume stays exact."""
    for folder, auto in (("same", "fp32"), ("other", "bf16")):
        fit(monkeypatch, tmp_path / folder, 4, "fp32")
        fit(monkeypatch, tmp_path / folder, 6, auto)
    assert losses_of(tmp_path / "same") == losses_of(tmp_path / "other")

"""What a training step takes, found without a GPU, weights or data."""

from pathlib import Path

import pytest
import torch
from commands import complains, does, facts
from program import RECIPES
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from multidiff.core.random import uniform
from multidiff.dry_run.step import Recipe, check_devices, cost_of_step
from multidiff.models.loading import build_model
from multidiff.training.trainer import Trainer
from multidiff.utils.errors import InputError

SMOKE = RECIPES / "smoke"
ROWS = 16


class Task(nn.Module):
    """A network on rows of numbers, and a squared error for each."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def task(self):
        return self

    def losses(self, batch, rng):
        return {"error": (self.network(batch["x"]) - batch["y"]).square().flatten(1).mean(dim=1)}


def by_hand(make, x, y, **trainer):
    """A recipe of a network and one batch."""

    class Batches:
        def batch(self, number, part=0, parts=1):
            return {"x": torch.zeros(ROWS, *x), "y": torch.zeros(ROWS, *y)}

    class ByHand(Recipe):
        def model(self):
            return Task(make())

        def batches(self):
            return Batches()

    options = {"steps": 1, "precision": "fp32", **trainer}
    return ByHand(Path("by_hand.yaml"), {}, Trainer(**options))


def perceptron():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def test_a_perceptrons_step_is_what_a_count_by_hand_says():
    cost = cost_of_step(by_hand(perceptron, (4,), (2,)))
    parameters = 4 * 8 + 8 + 8 * 2 + 2
    assert (cost.trainable, cost.frozen) == (parameters, 0)
    assert cost.weights == cost.gradients == cost.average == 4 * parameters
    # Two moments of each weight, and a number of steps for each of four tensors.
    assert cost.optimizer == 2 * 4 * parameters + 4 * 4
    first, second = 2 * ROWS * 4 * 8, 2 * ROWS * 8 * 2
    assert cost.forward_flops == first + second
    # Of the second layer gradients of weights and of inputs, of the first those of weights.
    assert cost.flops == 2 * first + 3 * second
    # Kept for the backward pass: the hidden states, the differences; and the loss itself.
    assert cost.activations == 4 * (ROWS * 8 + ROWS * 2 + 1)
    assert cost.batch == 4 * ROWS * (4 + 2)
    # Two layers, a rectifier and a squared error, forward and backward, and some numbers.
    assert 10 < cost.results < 60
    held = cost.weights + cost.average + cost.optimizer + cost.batch + cost.activations
    assert held < cost.peak < held + cost.gradients + 4 * ROWS * 8 * 3


class Offset(nn.Module):
    """A layer whose input is learned too, so that it needs a gradient."""

    def __init__(self, layer, shape):
        super().__init__()
        self.layer, self.offset = layer, nn.Parameter(torch.zeros(shape))

    def forward(self, x):
        return self.layer(x + self.offset)


@pytest.mark.parametrize(
    ("make", "x", "y", "forward"),
    [
        (lambda: Offset(nn.Linear(32, 64), (32,)), (32,), (64,), 2 * ROWS * 32 * 64),
        (
            lambda: Offset(nn.Conv2d(3, 8, 3, padding=1), (3, 10, 12)),
            (3, 10, 12),
            (8, 10, 12),
            2 * ROWS * 10 * 12 * 3 * 8 * 9,
        ),
    ],
)
def test_a_layers_step_is_three_times_its_forward_pass(make, x, y, forward):
    cost = cost_of_step(by_hand(make, x, y))
    assert cost.forward_flops == forward
    assert cost.flops == 3 * forward
    twice = cost_of_step(by_hand(make, x, y, gradient_accumulation_steps=4))
    assert twice.flops == 4 * cost.flops


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.read = nn.Linear(8, 24)

    def forward(self, x):
        query, key, value = self.read(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        kernel = nn.functional.scaled_dot_product_attention
        return kernel(query, key, value, dropout_p=0.1).transpose(1, 2).flatten(2)


def test_attention_is_counted_and_keeps_no_matrix_of_all_pairs():
    locations = 64
    cost = cost_of_step(by_hand(Attends, (locations, 8), (locations, 8)))
    pairs = 2 * ROWS * 2 * locations * locations * 4
    assert cost.forward_flops == 2 * ROWS * locations * 8 * 24 + 2 * pairs
    assert cost.activations < 4 * ROWS * 2 * locations * locations


def test_bfloat16_halves_what_is_kept():
    wide = lambda: nn.Sequential(nn.Linear(4, 256), nn.GELU(), nn.Linear(256, 2))  # noqa: E731
    single = cost_of_step(by_hand(wide, (4,), (2,))).activations
    half = cost_of_step(by_hand(wide, (4,), (2,), precision="bf16")).activations
    assert 0.5 * single < half < 0.75 * single


# ------------------------------------------------------------------------ wrong devices


class OnTheCpu(nn.Module):
    """Adds a tensor that is made without naming a device."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 2)

    def forward(self, x):
        return self.inner(x) + torch.ones(2)


class Unregistered(nn.Module):
    """Multiplies by a tensor that is no buffer, so that nothing moves it."""

    def __init__(self):
        super().__init__()
        self.inner, self.table = nn.Linear(4, 2), torch.ones(2)

    def forward(self, x):
        return self.inner(x) * self.table


class Registered(Unregistered):
    """The same as it should be."""

    def __init__(self):
        super().__init__()
        del self.table
        self.register_buffer("table", torch.ones(2))


@pytest.mark.parametrize("make", [OnTheCpu, Unregistered])
def test_a_tensor_on_the_wrong_device_is_found_and_its_module_named(make):
    recipe = by_hand(make, (4,), (2,))
    cost_of_step(recipe)
    with pytest.raises(InputError, match=rf"{make.__name__}\.forward \(.*test_dry_run.py:\d+\)"):
        check_devices(recipe)


def test_tensors_on_the_right_device_pass():
    check_devices(by_hand(Registered, (4,), (2,)))


# ------------------------------------------------------------- values that are not there


class ReadsWeights(nn.Linear):
    def forward(self, x):
        return super().forward(x) if self.weight.mean() > 0 else super().forward(-x)


def test_code_that_asks_for_the_value_of_weights_is_refused_by_its_line():
    with pytest.raises(InputError, match=r"ReadsWeights\.forward .*depends on weights"):
        cost_of_step(by_hand(lambda: ReadsWeights(4, 2), (4,), (2,)))


class ReadsData(nn.Linear):
    """Computes rows that the data choose, and some that are drawn."""

    def forward(self, x):
        chosen = x[:, 0] == 0
        assert bool(chosen.all()) and int(chosen.sum()) == ROWS
        found = torch.zeros(len(x), 2, device=x.device)
        found[chosen] = super().forward(x[chosen])
        drawn = uniform((len(x),), torch.Generator().manual_seed(0)) < 2
        return found * drawn.to(x.device)[:, None]


def test_values_of_data_and_draws_are_there_on_both_devices():
    recipe = by_hand(lambda: ReadsData(4, 2), (4,), (2,))
    assert cost_of_step(recipe).forward_flops == 2 * ROWS * 4 * 2
    check_devices(recipe)


# ----------------------------------------------------------------------------- recipes


def test_the_command_tells_of_a_recipe_whose_data_are_nowhere(capsys):
    recipe = SMOKE / "masked.yaml"
    absent = ["data.examples.source.path=absent", "model.domain.vocabulary.source.path=absent"]
    reported = facts(capsys, "check", recipe, *absent, "--dry-run", "--gpu", "a100", "--mfu", "0.5")
    (found,) = reported["recipes"]
    network = build_model(recipe)
    assert found["trainable"] == sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert found["batch_size"] == 8 and found["precision"] == "bf16" and found["fits"]
    assert found["step_s"] == pytest.approx(found["flops"] / 312e12 / 0.5)
    assert found["run_s"] == pytest.approx(20 * found["step_s"])
    assert any("longest that the recipe allows" in one for one in found["assumed"])


def test_overrides_change_what_is_estimated(capsys):
    printed = does(
        capsys, "check", SMOKE / "speech.yaml", "data.batch_size=6", "--dry-run", "--markdown"
    )
    heading, _, row = printed.splitlines()
    assert heading.startswith("| recipe | parameters |")
    assert "speech.yaml` | 0.1 M | 6, bf16 |" in row
    # Tables that are kept between calls are made of ordinary tensors.
    from multidiff.audio.vocoder.mdct import _basis

    assert not isinstance(_basis(128), FakeTensor)


def test_an_editor_is_aligned_with_values_and_trained_without(capsys):
    (found,) = facts(capsys, "check", SMOKE / "edits.yaml", "--dry-run")["recipes"]
    assert found["flops"] > 2.5 * found["forward_flops"] > 0


def test_a_frozen_autoencoder_and_its_first_pass(capsys):
    (found,) = facts(capsys, "check", SMOKE / "digit_tokens.yaml", "--dry-run")["recipes"]
    network = build_model(SMOKE / "digit_tokens.yaml")
    own = sum(p.numel() for p in network.domain.autoencoder.parameters())
    assert found["frozen"] == own > 0


def test_what_is_wrong_is_one_line(capsys, monkeypatch):
    from multidiff.text.data.sentences import Sentences

    recipe = SMOKE / "masked.yaml"
    assert "rtx4090" in complains(capsys, "check", recipe, "--dry-run", "--gpu", "voodoo2")
    assert "--mfu 2" in complains(capsys, "check", recipe, "--dry-run", "--mfu", "2")
    unused = complains(capsys, "check", recipe, "--gpu", "a100", "--markdown")
    assert "--gpu, --markdown: only a dry run estimates costs" in unused
    monkeypatch.delattr(Sentences, "synthetic")
    reported = complains(
        capsys, "check", recipe, "data.examples.source.path=absent.csv", "--dry-run"
    )
    assert "absent.csv" in reported and "Sentences" in reported and "synthetic" in reported


def test_sampling_by_a_model_alone(tmp_path, capsys):
    """The recipe of a converted model has no data: its peak in sampling is stated."""
    from multidiff.config.recipe import to_yaml
    from multidiff.models.loading import check_recipe

    model = check_recipe(SMOKE / "digits_pixels.yaml")["model"].resolved
    path = tmp_path / "recipe.yaml"
    path.write_text(to_yaml({"model": model}))
    (found,) = facts(capsys, "check", path, "--dry-run")["recipes"]
    sampling, network = found["sampling"], build_model(path)
    weights = sum(one.nbytes for one in network.state_dict().values())
    assert sampling["weights"] == pytest.approx(weights, rel=0.01)
    assert sampling["peak"] == sampling["weights"] + sampling["parts"]["denoiser"]
    widest = 2 * 28 * 28 * model["denoiser"]["channels"][0] * 4
    assert widest < sampling["parts"]["denoiser"] < 100 * widest
    assert sampling["flops"]["denoiser"] > weights / 4  # each weight is used at least once
    assert "at the peak for one item in float32" in does(capsys, "check", path, "--dry-run")

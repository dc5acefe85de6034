"""Training leaves the process and the caller as they were, and frozen parts as they were given."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from toys import PointDenoiser, Points, Ring, ring_task

import multidiff as md
from multidiff.core.draws import DrawsFrom
from multidiff.core.protocols import Encoded
from multidiff.utils.errors import InputError


class Latents(md.Domain, nn.Module):
    """States from a frozen encoder whose modes would show."""

    def __init__(self, training=False):
        nn.Module.__init__(self)
        layers = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5))
        self.encoder = layers.train(training).requires_grad_(False)
        self.modes = []
        for layer in layers:
            layer.register_forward_hook(lambda m, i, o: self.modes.append(m.training))

    def encode(self, batch, rng):
        return Encoded(self.encoder(batch["points"]))


def latent_task(training=False):
    torch.manual_seed(7)
    process = md.GaussianProcess(md.BetaSchedule.linear(100))
    return md.DiffusionTask(Latents(training), process, PointDenoiser(0.1))


def batches():
    return md.Batches(Ring(), 8)


def fit(task, steps, out=None, **more):
    plan = md.Trainer(steps=steps, log_every=2, save_every=2, validate_every=2, ema_decay=0.5)
    return plan.fit(task, batches(), batches(), out=out, **more)


def test_a_frozen_encoder_keeps_the_mode_it_was_given(tmp_path):
    whole, parts = latent_task(), latent_task()
    fit(whole, 4, tmp_path / "whole")
    assert not any(whole.domain.modes)
    fit(parts, 2, tmp_path / "parts")
    resumed = latent_task()
    fit(resumed, 4, tmp_path / "parts", resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert not whole.domain.encoder.training and not whole.denoiser.training


def test_a_frozen_part_that_was_given_in_train_mode_stays_so_while_training():
    task = latent_task(training=True)
    md.Trainer(steps=1, validate_every=5).fit(task, batches())
    assert all(task.domain.modes) and task.domain.encoder.training


def test_a_second_fit_trains_in_train_mode():
    task, modes = latent_task(), []
    fit(task, 1)
    task.denoiser.layers[2].register_forward_hook(lambda m, i, o: modes.append(m.training))
    md.Trainer(steps=2, validate_every=5).fit(task, batches())
    assert modes == [True, True]


@pytest.mark.parametrize("workers", [0, 1])
def test_fit_moves_no_generator_and_no_setting(workers):
    task, threads = ring_task(dropout=0.5), torch.get_num_threads()
    torch.manual_seed(100)
    before = torch.get_rng_state()
    plan = md.Trainer(steps=2, validate_every=1, threads=threads + 1, workers=workers)
    plan.fit(task, batches(), batches())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_dropout_is_a_function_of_the_step_alone():
    one, other = ring_task(dropout=0.5), ring_task(dropout=0.5)
    torch.manual_seed(1)
    fit(one, 3)
    torch.manual_seed(2)
    torch.rand(7)
    fit(other, 3)
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


class Checkpointed(PointDenoiser):
    """Its forward pass is made again in the backward one, dropout too."""

    def forward(self, xt, level, condition=None):
        return checkpoint(super().forward, xt, level, condition, use_reentrant=False)


def test_checkpointed_dropout_drops_the_same_in_both_passes():
    """The gradients are those of the network that keeps what it computes, to the bit."""
    plain, saving = ring_task(dropout=0.5), ring_task(dropout=0.5)
    saving.denoiser.__class__ = Checkpointed
    torch.manual_seed(100)
    before = torch.get_rng_state()
    losses = [fit(task, 3).losses for task in (plain, saving)]
    assert losses[0] == losses[1]
    assert torch.equal(torch.get_rng_state(), before)
    for mine, theirs in zip(plain.parameters(), saving.parameters(), strict=True):
        assert torch.equal(mine, theirs)


DRAWS = [
    lambda x: nn.functional.dropout(x, 0.5),
    torch.rand_like,
    torch.randn_like,
    lambda x: torch.empty_like(x).uniform_(),
    lambda x: torch.randperm(9),
    lambda x: nn.init.trunc_normal_(torch.empty(5, 5)),
    lambda x: nn.functional.gumbel_softmax(x),
    lambda x: nn.functional.dropout2d(x[None]),
]


@pytest.mark.parametrize("draw", DRAWS)
def test_redirected_draws_are_those_of_the_default_generator(draw):
    x = torch.ones(3, 20, 7)
    torch.manual_seed(3)
    wanted = draw(x), draw(x)
    before = torch.get_rng_state()
    with DrawsFrom(torch.Generator().manual_seed(3)):
        found = draw(x), draw(x)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_float32_and_then_bfloat16_in_one_process():
    kinds = []
    for precision in ("fp32", "bf16", "fp32"):
        task = ring_task()
        task.denoiser.layers.register_forward_hook(lambda m, i, o: kinds.append(o.dtype))
        md.Trainer(steps=1, precision=precision).fit(task, batches())
    assert kinds == [torch.float32, torch.bfloat16, torch.float32]


def test_a_loaded_model_is_trained_further_where_that_is_said(small_vocoder):
    with pytest.raises(InputError, match="trainable=True"):
        md.Trainer(steps=1).fit(md.load(small_vocoder).task(), batches())
    assert not any(one.requires_grad for one in md.load(small_vocoder).parameters())
    assert any(one.requires_grad for one in md.load(small_vocoder, trainable=True).parameters())


@pytest.mark.parametrize("name", ["denoising", "gradient", "rate"])
def test_extra_losses_do_not_take_a_name_that_stands_for_something_else(name):
    class Extra(Points):
        def extra_losses(self, encoded, corrupted, estimate, process):
            return {name: estimate.x0.mean(dim=1)}

    process = md.GaussianProcess(md.BetaSchedule.linear(100))
    task = md.DiffusionTask(Extra(), process, PointDenoiser())
    with pytest.raises(ValueError, match=name):
        md.Trainer(steps=1).fit(task, batches())

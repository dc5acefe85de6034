"""Gradient checkpointing: the same draws and gradients from fewer saved tensors."""

import pytest
import torch
from commands import complains, facts
from program import RECIPES
from test_trainer import QUICK, weights_of
from toys import Ring, ring_task

import multidiff as md
from multidiff.core.draws import DrawsFrom, checkpointed
from multidiff.image.diffusion.unet import UNet
from multidiff.nn.transformer import Transformer
from multidiff.utils.errors import InputError


def saved_bytes(loss_of, seed=3):
    """Bytes that the graph of a loss keeps, and the loss's gradients with dropout."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with DrawsFrom(torch.Generator().manual_seed(seed)):
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = loss_of()
        loss.backward()
    return sum(kept.values())


def networks():
    unet = UNet(
        *(3, 3, (8, 16)), layers=2, attention=("none", "self"), heads=(1, 2), groups=4, dropout=0.2
    )
    points, words = torch.randn(2, 3, 16, 16), torch.randn(2, 32, 16)
    level = md.GaussianProcess(md.BetaSchedule.linear(100)).schedule.at(torch.tensor([0.1, 0.9]))
    yield unet, lambda: unet(points, level)
    body = Transformer(16, 6, 2, dropout=0.2)
    yield body, lambda: body(words)


@pytest.mark.parametrize("kind", [0, 1], ids=["UNet", "Transformer"])
def test_the_same_gradients_from_fewer_saved_tensors(kind):
    torch.manual_seed(0)
    net, call = list(networks())[kind]
    found = []
    for switch in (False, True):
        net.gradient_checkpointing = switch
        net.train().zero_grad()
        size = saved_bytes(lambda: call().square().mean())
        found.append((size, [weight.grad.clone() for weight in net.parameters()]))
    (whole, plain), (less, again) = found
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))
    assert less < whole / 3


def test_draws_are_repeated_and_end_where_they_would():
    """Dropout's mask is the first call's, although others drew since; later draws go on."""
    x = torch.ones(1000, requires_grad=True)
    generator = torch.Generator().manual_seed(5)
    default = torch.get_rng_state()
    with DrawsFrom(generator):
        y = checkpointed(lambda one: torch.nn.functional.dropout(one, 0.5).square(), x)
        later = torch.rand(3)
        y.sum().backward()
        last = torch.rand(3)
    assert torch.equal(x.grad, 2 * y.detach())
    assert torch.equal(torch.get_rng_state(), default)
    plain = torch.Generator().manual_seed(5)
    with DrawsFrom(plain):
        z = torch.nn.functional.dropout(torch.ones(1000), 0.5).square()
        assert torch.equal(z, y.detach())
        assert torch.equal(torch.rand(3), later)
        assert torch.equal(torch.rand(3), last)


class Body(torch.nn.Module):
    """Points as two positions of a small transformer with dropout."""

    def __init__(self):
        super().__init__()
        self.into, self.out = torch.nn.Linear(2, 8), torch.nn.Linear(8, 2)
        self.body = Transformer(8, 3, 2, dropout=0.3)

    def forward(self, xt, level, condition=None):
        return self.out(self.body(self.into(xt)[:, None].expand(-1, 2, -1)).mean(1))


def fit(folder, steps, resume=False, **options):
    torch.manual_seed(1)
    task = ring_task()
    task.denoiser = Body()
    data = md.Batches(Ring(), 8)
    md.Trainer(steps=steps, **QUICK, **options).fit(task, data, out=folder, resume=resume)
    return task


def test_a_run_is_the_same_and_may_change_to_it(tmp_path):
    state = torch.get_rng_state()
    plain = fit(tmp_path / "plain", 10)
    task = fit(tmp_path / "saved", 10, gradient_checkpointing=True)
    assert torch.equal(weights_of(plain), weights_of(task))
    assert not task.denoiser.body.gradient_checkpointing
    fit(tmp_path / "changed", 5)
    changed = fit(tmp_path / "changed", 10, resume=True, gradient_checkpointing=True)
    assert torch.equal(weights_of(plain), weights_of(changed))
    assert state.shape == torch.get_rng_state().shape
    with pytest.raises(InputError, match="no part of DiffusionTask has it"):
        md.Trainer(steps=1, gradient_checkpointing=True).fit(ring_task(), [{"points": state}])


def test_a_dry_run_counts_less_memory(capsys):
    recipe, option = RECIPES / "smoke" / "masked_text.yaml", "trainer.gradient_checkpointing=true"
    plain, saved = (
        facts(capsys, "check", "--dry-run", recipe, *more)["recipes"][0] for more in ([], [option])
    )
    assert saved["activations"] < 0.7 * plain["activations"]
    assert saved["peak"] < plain["peak"]
    assert saved["flops"] > 1.2 * plain["flops"]
    other = RECIPES / "smoke" / "speech.yaml"
    assert "no part of" in complains(capsys, "check", "--skip-data", other, option)
    assert "no part of" in complains(capsys, "check", "--dry-run", other, option)

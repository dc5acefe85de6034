"""Parts of a joint state with padding, and parts that are clean in one of several processes."""

import multiprocessing

import pytest
import torch

from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.samplers import DDPM
from multidiff.core.gaussian.schedules import BetaSchedule, LogSNRSchedule
from multidiff.core.gaussian.subspace import SubspaceProcess, ZeroMean
from multidiff.core.gaussian.timesteps import ImportanceTimes, uniform_timesteps
from multidiff.core.joint.bound import joint_nelbo
from multidiff.core.joint.level import Held, JointLevel, JointSchedule
from multidiff.core.joint.process import JointProcess
from multidiff.core.joint.sampler import JointSampler
from multidiff.core.joint.task import JointTask
from multidiff.core.protocols import Domain, Encoded
from multidiff.core.sample import sample

REAL = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])[:, :, None].float()
BOTH = ZeroMean(1, REAL)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def process():
    points = SubspaceProcess(LogSNRSchedule(), ZeroMean(1), "x0")
    return JointProcess({"points": points, "colour": GaussianProcess(LogSNRSchedule(), "x0")})


class Network(torch.nn.Linear):
    """One that writes something into the padding."""

    def forward(self, xt, level, condition=None):
        return {"points": super().forward(xt["points"]) + 9, "colour": xt["colour"]}


def states():
    points = torch.randn(2, 4, 3, generator=seeded())
    return {"points": BOTH.project(points), "colour": torch.randn(2, 1, generator=seeded())}


def assert_real(points):
    assert float(points[1, 2:].detach().abs().max()) == 0
    torch.testing.assert_close(points, BOTH.project(points), rtol=0, atol=1e-5)


def test_extra_losses_read_estimates_of_the_real_points_alone():
    seen = []

    class Coloured(Domain):
        def encode(self, batch, rng):
            return Encoded(states(), mask={"points": REAL})

        def extra_losses(self, encoded, corrupted, estimate, process):
            seen.append(estimate["points"].x0)
            return {}

    JointTask(Coloured(), process(), Network(3, 3)).losses(None, seeded())
    assert_real(seen[0])


def test_padded_parts_are_sampled_and_bounded_in_their_subspace():
    masked = process().masked({"points": REAL})
    grid = uniform_timesteps(4)
    found = sample(
        masked,
        Network(3, 3),
        JointSampler({"points": DDPM(), "colour": DDPM()}),
        {"points": (2, 4, 3), "colour": (2, 1)},
        JointSchedule({"points": grid, "colour": grid}),
        rng=seeded(),
    )
    assert_real(found["points"])
    # Held at pure noise, the points are drawn from the prior of the real ones.
    held = JointSchedule({"points": Held(1.0), "colour": grid})
    with torch.no_grad():
        joint_nelbo(process(), Network(3, 3), states(), held, mask={"points": REAL}, rng=seeded())
    plain = process()
    assert plain.masked(None) is plain
    with pytest.raises(ValueError, match="mask: the process has no part 'point'"):
        plain.masked({"point": REAL})


def _one_step(rank, folder):
    """Part a is clean in all rows of the first process."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    times = ImportanceTimes(100, history=1)
    schedule = BetaSchedule.linear(100)
    joint = JointProcess(
        {"a": GaussianProcess(schedule, times=times), "b": GaussianProcess(schedule)}
    )
    noisy = schedule.at(torch.tensor([0.3, 0.7]))
    clean = Held(0.0).level(joint.parts["a"]).expand(2)
    x0 = {"a": torch.ones(2, 3), "b": torch.ones(2, 3)}
    corrupted = joint.corrupt(x0, JointLevel({"a": noisy if rank else clean, "b": noisy}), seeded())
    joint.losses({name: one.requires_grad_() for name, one in x0.items()}, corrupted)
    torch.save(times.counts, f"{folder}/{rank}.pt")
    torch.distributed.barrier()


def test_learned_times_of_a_part_that_is_clean_in_one_process(tmp_path):
    """Those that learn wait for all processes: each has to come, with or without a loss."""
    context = multiprocessing.get_context("fork")
    arguments = [(n, str(tmp_path)) for n in range(2)]
    both = [context.Process(target=_one_step, args=one, daemon=True) for one in arguments]
    for one in both:
        one.start()
    for one in both:
        one.join(20)  # one that waits for the other does so for half an hour
    for one in both:
        one.kill()
    assert [one.exitcode for one in both] == [0, 0]
    counts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert torch.equal(*counts) and int(counts[0].sum()) == 2

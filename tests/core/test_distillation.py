"""Distillation against flow maps in closed form: of normals, under guidance, and of a mixture."""

import shutil

import pytest
import torch
from torch import nn

from benchmarks.mixture import TUNED, even_quantiles
from multidiff.core.discrete.absorbing import MaskProcess
from multidiff.core.discrete.schedules import LogLinearMasks
from multidiff.core.gaussian.distillation import Distillation, DistillationTask, check_alike
from multidiff.core.gaussian.edm import VarianceExploding
from multidiff.core.gaussian.flow import RectifiedFlow
from multidiff.core.gaussian.predictions import noise_between
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.samplers import DDIM
from multidiff.core.gaussian.schedules import BetaSchedule, LogSNRSchedule
from multidiff.core.gaussian.stochastic import ConsistencySampler
from multidiff.core.gaussian.timesteps import ImportanceTimes, uniform_timesteps
from multidiff.core.protocols import Corrupted, Domain, Encoded
from multidiff.core.sample import sample
from multidiff.data.batches import Batches, TensorExamples
from multidiff.training.trainer import Trainer

STD = 0.5
PATHS = {
    "cosine": BetaSchedule.cosine(),
    "log-snr": LogSNRSchedule(),
    "flow": RectifiedFlow(),
    "ve": VarianceExploding(),
}


class Rows(Domain):
    def encode(self, batch, rng):
        return Encoded(batch["x0"], batch.get("mean"))


class Closed(nn.Module):
    """A network that returns the prediction of a function's clean state."""

    def __init__(self, process, x0):
        super().__init__()
        self.process, self.x0 = process, x0
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, xt, level, condition=None):
        x0 = self.x0(xt, level.alpha[:, None], level.sigma[:, None], condition)
        pair = Corrupted(xt, x0, noise_between(xt, x0, level), level)
        return self.process.prediction.target(pair)


def posterior(xt, alpha, sigma, mean):
    """The mean of the clean state for data from N(mean, STD^2); the null condition is mean 0."""
    return mean + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (xt - alpha * mean)


def flow_map(scale):
    """The end of the guided flow: guidance of scale w is the posterior of N(w mean, STD^2)."""

    def x0(xt, alpha, sigma, mean):
        width = (alpha**2 * STD**2 + sigma**2).sqrt()
        return scale * mean + STD / width * (xt - alpha * scale * mean)

    return x0


def rows(count=32):
    rng = torch.Generator().manual_seed(0)
    mean = torch.randn(count, 1, dtype=torch.float64, generator=rng)
    x0 = mean + STD * torch.randn(count, 2, dtype=torch.float64, generator=rng)
    return {"x0": x0, "mean": mean}


@pytest.mark.parametrize(
    ("path", "prediction"),
    [("cosine", "v"), ("cosine", "epsilon"), ("log-snr", "x0"), ("flow", "flow"), ("ve", "edm")],
)
def test_the_loss_vanishes_at_the_exact_flow_map_of_the_guided_teacher(path, prediction):
    process, scale = GaussianProcess(PATHS[path], prediction), 1.5
    teacher, student = Closed(process, posterior), Closed(process, flow_map(scale))
    found = []
    for steps in (8, 32):
        how = Distillation(guidance_scale=scale, teacher_steps=steps)
        task = DistillationTask(Rows(), process, student, how, teacher=teacher)
        rng = torch.Generator().manual_seed(1)
        xt = process.corrupt(rows()["x0"], level := task._start(32, rng), rng).xt
        ends = task.trajectory(xt, level, rows()["mean"])
        mean, (alpha, sigma) = rows()["mean"].repeat(4, 1), ends.level.parts()[1:]
        exact = flow_map(scale)(ends.xt, alpha[:, None], sigma[:, None], mean)
        found.append(float((ends.x0 - exact).abs().mean()))
        loss = task.losses(rows(), torch.Generator().manual_seed(1))["distillation"]
        assert loss.shape == (4 * 32,)
    assert found[1] < 0.02 and found[1] < found[0] / 2
    wrong = DistillationTask(Rows(), process, Closed(process, flow_map(1.0)), how, teacher=teacher)
    other = wrong.losses(rows(), torch.Generator().manual_seed(1))["distillation"]
    assert float(loss.mean()) < 1e-3 * float(other.mean())  # scale 1 instead of 1.5


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_exact_student_samples_the_data_in_a_few_steps(path, steps):
    process, rng = GaussianProcess(PATHS[path], "v"), torch.Generator().manual_seed(0)
    student, mean = Closed(process, flow_map(1.0)), torch.full((8000, 1), 0.7)
    times = uniform_timesteps(steps)
    found = sample(
        process, student, ConsistencySampler(), (8000, 1), times, condition=mean, rng=rng
    )
    assert float(found.mean()) == pytest.approx(0.7, abs=0.02)
    assert float(found.std()) == pytest.approx(STD, rel=0.03)


class Small(nn.Module):
    """A perceptron that returns the prediction x0."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1)
        )

    def forward(self, xt, level, condition=None):
        alpha, sigma = level.alpha.to(xt)[:, None], level.sigma.to(xt)[:, None]
        return self.layers(torch.cat([xt, alpha, sigma], dim=1))


def mixture_task(seed=0, **options):
    process = GaussianProcess(BetaSchedule.cosine(), "x0")
    teacher = Closed(process, lambda xt, a, s, _: TUNED.x0(xt.double(), a[:, 0], s[:, 0]).to(xt))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        student = Small()
    how = Distillation(teacher_steps=8, **options)
    return DistillationTask(Rows(), process, student, how, teacher=teacher)


def mixture_batches():
    rng = torch.Generator().manual_seed(0)
    x0 = TUNED.quantiles(torch.rand(4096, generator=rng, dtype=torch.float64)).float()[:, None]
    return Batches(TensorExamples(x0=x0), batch_size=256)


def distance(process, network, sampler, steps):
    """W1 of 4000 samples from the mixture."""
    rng = torch.Generator().manual_seed(0)
    found = sample(process, network, sampler, (4000, 1), uniform_timesteps(steps), rng=rng)
    wanted = TUNED.quantiles(even_quantiles(4000))
    return float((found.flatten().double().sort().values - wanted).abs().mean())


def test_a_student_trained_for_seconds_nears_the_flow_map_of_a_mixture():
    task = mixture_task()
    trainer = Trainer(steps=80, learning_rate=2e-2, decay="cosine", ema_decay=0.9, precision="fp32")
    trainer.fit(task, mixture_batches())
    found = {
        steps: distance(task.process, task.denoiser, ConsistencySampler(), steps)
        for steps in (1, 2, 4)
    }
    assert max(found.values()) < 0.2
    for steps in (1, 2):
        assert found[steps] < distance(task.process, task.teacher, DDIM(), steps) / 2


def test_a_resumed_run_keeps_its_teacher_and_ends_at_the_same_weights(tmp_path):
    """The teacher is a copy of the first weights; a resumed run's task is made of other ones."""

    def fit(seed, folder, resume=False):
        task = mixture_task(seed, steps=2)
        task.teacher = Small().requires_grad_(False)
        task.teacher.load_state_dict(task.denoiser.state_dict())
        trainer = Trainer(steps=4, save_every=2, keep_checkpoints=9, precision="fp32")
        trainer.fit(task, mixture_batches(), out=folder, resume=resume)
        return task.state_dict()

    whole = fit(0, tmp_path / "run")
    checkpoints = sorted((tmp_path / "run" / "checkpoints").iterdir())
    shutil.rmtree(checkpoints[-1])
    again = fit(1, tmp_path / "run", resume=True)
    assert all(torch.equal(again[name], value) for name, value in whole.items())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 0}, "steps 0: must be at least 1"),
        ({"teacher_steps": 0}, "teacher_steps 0: must be at least 1"),
        ({"points": 3}, "points 3: must divide teacher_steps 8"),
        ({"guidance_scale": -1.0}, "guidance_scale -1: must be 0 or more"),
    ],
)
def test_settings_out_of_range(options, said):
    with pytest.raises(ValueError, match=said):
        Distillation(**options)


@pytest.mark.parametrize(
    ("process", "said"),
    [
        (
            lambda: MaskProcess(4, LogLinearMasks()),
            "only a Gaussian process has a probability flow",
        ),
        (
            lambda: GaussianProcess(BetaSchedule.cosine(), times=ImportanceTimes(1000)),
            "remove the process's times",
        ),
    ],
)
def test_a_process_that_cannot_be_distilled(process, said):
    with pytest.raises(ValueError, match=said):
        DistillationTask(Rows(), process(), Small(), Distillation())


def test_a_teacher_of_another_path_or_prediction_is_refused():
    student = GaussianProcess(BetaSchedule.cosine(), "v")
    check_alike(student, GaussianProcess(BetaSchedule.cosine(), "v"))
    with pytest.raises(ValueError, match="prediction is EpsilonPrediction, the recipe's VPred"):
        check_alike(student, GaussianProcess(BetaSchedule.cosine(), "epsilon"))
    with pytest.raises(ValueError, match="another noise schedule"):
        check_alike(student, GaussianProcess(RectifiedFlow(), "v"))
    with pytest.raises(ValueError, match="no Gaussian process"):
        check_alike(student, None)

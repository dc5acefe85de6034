"""Training on the states that few-step sampling itself visits.

A network is usually trained on noisy data. In sampling it reads states made of its own earlier
estimates, whose errors it has never seen; with few steps the difference is large. Here a part of
the training samples is replaced by what a deterministic sampler makes of pure noise, at one of the
levels that it visits. Such a state belongs to no particular clean one, so the process's own loss
does not apply to it. The domain's extra losses do, if they compare estimate and data in a way that
the unknown part, such as a sound's phase, does not affect. InferGrad (Chen et al. 2022) puts the
whole inference into training, WaveFit (Koizumi et al. 2022) every one of its iterations.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.core.context import SamplerContext
from multidiff.core.gaussian.predictions import noise_between
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.samplers import DDIM
from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.gaussian.timesteps import TimestepSchedule
from multidiff.core.guidance import map_condition
from multidiff.core.protocols import Corrupted, Domain, Encoded
from multidiff.core.random import Rng, uniform
from multidiff.core.sample import traverse
from multidiff.core.task import DiffusionTask, device_type, dtype_beside, full_precision


class RolloutTask(DiffusionTask):
    """Denoising task, some of whose noisy states are those that sampling visits.

    Args:
        domain: codec between media and states, with extra losses.
        process: Gaussian process of the states.
        denoiser: the network.
        times: timestep schedule of sampling.
        ratio: fraction of the samples whose states are sampled.

    Raises:
        ValueError: if the ratio is not in [0, 1], or the domain has no extra losses, without
            which nothing would train on such states.
    """

    process: GaussianProcess

    def __init__(
        self,
        domain: Domain,
        process: GaussianProcess,
        denoiser: nn.Module,
        times: TimestepSchedule,
        ratio: float = 0.5,
    ):
        super().__init__(domain, process, denoiser)
        if not 0 <= ratio <= 1:
            raise ValueError(f"rollout ratio {ratio:g} is not in [0, 1]")
        if type(domain).extra_losses is Domain.extra_losses:
            raise ValueError(
                f"{type(domain).__name__} has no extra losses, which alone train on sampled states"
            )
        self.visited, self.ratio = times, ratio

    def losses(self, batch: object, rng: Rng | None) -> dict[str, Float[Tensor, " batch"]]:
        """Return the losses of each sample; the process's own is 0 where the state is sampled."""
        on = device_type(self.denoiser)
        with full_precision(on):
            encoded = self._encoded(batch, rng)
            count, device = len(encoded.x0), encoded.x0.device
            level = self.process.draw_level(count, rng).to(device)
            corrupted = self.process.corrupt(encoded.x0, level, rng, encoded.mask)
            draws = uniform((count, 2), rng)
        sampled = (draws[:, 0] < self.ratio).to(device)
        corrupted = self._sampled(encoded, corrupted, sampled, float(draws[0, 1]), rng)
        output = self.denoiser(corrupted.xt, corrupted.level, encoded.condition)
        with full_precision(on):
            output = output.to(dtype_beside(encoded.x0))
            loss = self.process.loss(output, corrupted, encoded.mask)
            extra = self._extra_losses(encoded, corrupted, output, {"denoising"})
        return {"denoising": torch.where(sampled, 0.0, loss), **extra}

    @torch.no_grad()
    def _sampled(
        self, encoded: Encoded, corrupted: Corrupted, rows: Tensor, draw: float, rng: Rng | None
    ) -> Corrupted:
        """Return the corrupted states, with sampled ones in the given rows.

        Args:
            encoded: the clean states.
            corrupted: their noisy versions.
            rows: which to replace.
            draw: number in [0, 1) that selects the level reached, one of those visited.
            rng: source of the noise that sampling starts from.
        """
        if not bool(rows.any()):
            return corrupted
        x0 = corrupted.x0[rows]
        visited = self.process.levels(self.visited)[:-1]
        levels = [one.to(x0.device).expand(len(x0)) for one in visited]
        reached = int(draw * len(levels))
        condition = map_condition(lambda part: part[rows.to(part.device)], encoded.condition)
        # The rollout is the sampling loop; DDIM draws no noise after the first.
        state = traverse(
            SamplerContext(self.process, self.denoiser, condition),
            DDIM(),
            levels[: reached + 1],
            self.process.prior(corrupted.x0.shape, rng).to(x0)[rows],
            check=False,
        )
        parts = zip(corrupted.level.parts(), levels[reached].parts(), strict=True)
        time, alpha, sigma = (whole.clone().masked_scatter_(rows, own) for whole, own in parts)
        level = NoiseLevel(time, alpha, sigma)
        xt, noise = corrupted.xt.clone(), corrupted.noise.clone()
        xt[rows] = state.to(xt)
        noise[rows] = noise_between(xt[rows], x0, level[rows]).to(noise)
        return Corrupted(xt, corrupted.x0, noise, level)

"""Training as in diffusers' example for unconditional images, one step at a time.

What ``examples/unconditional_image_generation`` of diffusers does, with its settings: AdamW of
torch's default kind, gradient norms of at most 1, an average of the weights with warm-up, epsilon
prediction on 1,000 linear betas, all through accelerate. Two things differ: images come from
memory, not from files, and the rate decays with the fraction of work done, set by the caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multidiff.training.lr_schedule import rate_at

LEARNING_RATE = 1e-4
BETAS, WEIGHT_DECAY = (0.95, 0.999), 1e-6
WARMUP = 0.05  # fraction of the whole; 500 steps in the example, which trains longer
LARGEST_GRADIENT = 1.0
TABLE = 1000
RESOLUTION = 10_000  # steps of the fraction of work done


class DiffusersTraining:
    """A diffusers network in training.

    Args:
        network: takes states and timesteps.
        image: bytes ``(count, channels, height, width)``.
        batch_size: number of images in a step.
    """

    def __init__(self, network: nn.Module, image: Tensor, batch_size: int):
        from accelerate import Accelerator
        from diffusers import DDPMScheduler
        from diffusers.training_utils import EMAModel

        self.engine = Accelerator()
        self.scheduler: Any = DDPMScheduler(num_train_timesteps=TABLE)
        optimizer = torch.optim.AdamW(
            network.parameters(), LEARNING_RATE, BETAS, weight_decay=WEIGHT_DECAY
        )
        data = torch.utils.data.TensorDataset(image)
        loader = torch.utils.data.DataLoader(data, batch_size, shuffle=True)
        self.network, self.optimizer, loader = self.engine.prepare(network, optimizer, loader)
        self.average: Any = EMAModel(
            network.parameters(), 0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75
        )
        self.steps = 0
        self._batches = _endless(loader)

    def step(self, progress: float) -> float:
        """Make one update of the weights.

        Args:
            progress: fraction of the work that is done, which the rate depends on.

        Returns:
            The loss before it.
        """
        position, warmup = round(progress * RESOLUTION), round(WARMUP * RESOLUTION)
        factor = rate_at(position, RESOLUTION, warmup, "cosine", 0.0)
        for group in self.optimizer.param_groups:
            group["lr"] = LEARNING_RATE * factor
        self.network.train()
        (image,) = next(self._batches)
        x0 = image.float() / 127.5 - 1
        noise = torch.randn_like(x0)
        times = torch.randint(0, TABLE, (len(x0),))
        xt = self.scheduler.add_noise(x0, noise, times)
        with self.engine.accumulate(self.network):
            loss = F.mse_loss(self.network(xt, times).sample, noise)
            self.engine.backward(loss)
            self.engine.clip_grad_norm_(self.network.parameters(), LARGEST_GRADIENT)
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.average.step(self.network.parameters())
        self.steps += 1
        return loss.item()

    @torch.no_grad()
    def samples(self, count: int, steps: int, at_once: int, seed: int) -> Tensor:
        """Sample images near [-1, 1] with the averaged weights, by DDIM.

        Args:
            count: number of images.
            steps: number of sampling steps.
            at_once: number of images in a batch.
            seed: random seed of the noise.
        """
        from diffusers import DDIMScheduler

        scheduler: Any = DDIMScheduler.from_config(self.scheduler.config)
        scheduler.set_timesteps(steps)
        network = self.engine.unwrap_model(self.network).eval()
        self.average.store(network.parameters())
        self.average.copy_to(network.parameters())
        rng = torch.Generator().manual_seed(seed)
        config, made = network.config, []
        for first in range(0, count, at_once):
            rows = min(at_once, count - first)
            shape = (rows, config.in_channels, config.sample_size, config.sample_size)
            state = torch.randn(shape, generator=rng)
            for time in scheduler.timesteps:
                state = scheduler.step(network(state, time).sample, time, state).prev_sample
            made.append(state)
        self.average.restore(network.parameters())
        return torch.cat(made)


def _endless(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader

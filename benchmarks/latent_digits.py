"""The package's side of the digits' budget: an autoencoder, then diffusion in its latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from multidiff.core.random import generators, mixed_seed
from multidiff.data.batches import Batches
from multidiff.image.data.image_files import to_unit
from multidiff.image.data.images import Images
from multidiff.image.diffusion.evaluation import prompts_of
from multidiff.models.loading import check_recipe
from multidiff.training.ema import MovingAverage
from multidiff.training.lr_schedule import rate_at
from multidiff.training.trainer import Trainer

RECIPES = Path(__file__).parent.parent / "recipes" / "image"
AUTOENCODER_RATIO = 0.3  # fraction of the time
SCALED_BY = 512  # number of digits whose latents determine the scaling
AT_ONCE = 50


class LatentDigits:
    """Training as in the recipes, one step at a time.

    Args:
        data: training digits; the recipe's if empty.
        held_out: held-out digits; a part of the others if empty.
        seed: random seed of the batches and the noise.
    """

    def __init__(self, data: str, held_out: str, seed: int):
        first = check_recipe(RECIPES / "digits_autoencoder.yaml", ["model.discriminator=null"])
        parts = check_recipe(RECIPES / "digits.yaml", _sources(data, held_out))
        self.model: Any = parts["model"].build()
        self._batches: Batches = parts["data"].build()
        images: Any = self._batches.examples
        self.images: Images = images
        self.real: Images = parts["validation"].build().examples
        self._plan: Trainer = parts["trainer"].build()
        self.autoencoder: Any = first["model"].build()
        batches = Batches(self.images, first["data"].resolved["batch_size"])
        self._first = Training(self.autoencoder, batches, first["trainer"].build(), seed)
        self._second: Training | None = None
        self._seed = seed

    @property
    def steps(self) -> int:
        """Number of steps of both so far."""
        return self._first.steps + (0 if self._second is None else self._second.steps)

    def step(self, progress: float) -> None:
        """Make one update, when that fraction of the time is used."""
        if progress < AUTOENCODER_RATIO:
            self._first.step(progress / AUTOENCODER_RATIO)
            return
        if self._second is None:
            self._second = self._begun()
        self._second.step((progress - AUTOENCODER_RATIO) / (1 - AUTOENCODER_RATIO))

    @torch.no_grad()
    def _begun(self) -> Training:
        """Return the diffusion's training, on the current autoencoder."""
        self._first.finish()
        trained, domain = self.autoencoder.autoencoder, self.model.domain
        domain.autoencoder.load_state_dict(trained.state_dict())
        order = torch.randperm(len(self.images))[:SCALED_BY].tolist()
        some = torch.stack([self.images.image(position) for position in order])
        latents = domain.gaussian(to_unit(some)).sample(torch.Generator().manual_seed(self._seed))
        domain.autoencoder.scaling = 1 / float(latents.std())
        return Training(self.model.task(), self._batches, self._plan, self._seed)

    def samples(self, count: int, steps: int, seed: int) -> Tensor:
        """Return digits in bytes, of the held-out digits' classes."""
        if self._second is not None:
            self._second.finish()
        prompts = prompts_of(self.model, self.real, count)
        return self.model.eval().generate(prompts, steps=steps, seed=seed, batch_size=AT_ONCE)


class Training:
    """A task trained as a recipe's trainer would, except for its length.

    Args:
        task: training task.
        batches: training batches.
        plan: rates and averages; its steps only set how the rate rises and decays.
        seed: random seed of the noise.
    """

    def __init__(self, task: nn.Module, batches: Batches, plan: Trainer, seed: int):
        self.task: Any = task
        self.batches, self.plan, self.seed, self.steps = batches, plan, seed, 0
        self.weights = [p for p in task.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.weights, betas=plan.betas, weight_decay=plan.weight_decay, fused=True
        )
        self.average = MovingAverage(task, plan.ema_decay)

    def step(self, progress: float) -> None:
        """Make one update."""
        plan, batch = self.plan, self.batches.batch(self.steps)
        position = round(progress * plan.steps)
        factor = rate_at(position, plan.steps, plan.warmup_steps, plan.decay, plan.decay_from)
        for group in self.optimizer.param_groups:
            group["lr"] = plan.learning_rate * factor
        seeds = [mixed_seed(self.seed, self.steps, row) for row in range(len(batch["image"]))]
        self.task.train()
        self.optimizer.zero_grad()
        losses = self.task.losses(batch, generators(seeds))
        torch.stack([loss.mean() for loss in losses.values()]).sum().backward()
        nn.utils.clip_grad_norm_(self.weights, plan.max_gradient_norm)
        self.optimizer.step()
        self.average.update()
        self.steps += 1

    @torch.no_grad()
    def finish(self) -> None:
        """Leave the averaged weights in the task."""
        for name, weight in self.task.named_parameters():
            weight.copy_(self.average.shadow[name])
        self.task.eval()


def _sources(data: str, held_out: str) -> list[str]:
    """Return changes to the recipe for other digits."""
    changes = []
    if data:
        changes = [f"{part}.examples.source.path={data}" for part in ("data", "validation")]
    if held_out:
        changes += [
            "data.examples.source.held_out_every=0",
            "validation.examples.source.held_out_every=0",
            "validation.examples.held_out=false",
            f"validation.examples.source.path={held_out}",
        ]
    return changes

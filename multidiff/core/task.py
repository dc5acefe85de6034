"""The training task: a domain, a process and a denoiser, and the losses they imply."""

from __future__ import annotations

from collections.abc import Mapping, Set
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.core.gaussian.self_conditioning import SelfConditioning
from multidiff.core.guidance import drop_condition, map_condition
from multidiff.core.protocols import (
    Condition,
    Corrupted,
    Corruption,
    Domain,
    Encoded,
    Estimate,
    Process,
)
from multidiff.core.random import Rng, uniform

# Names already used in the losses and the log, which an extra loss cannot take.
TAKEN = {"denoising", "gradient", "rate", "step", "group", "loss_scale", "skipped"}


class DiffusionTask(nn.Module):
    """Denoising task on one process: what the trainer optimises.

    Args:
        domain: codec between media and states; a module if it has parameters of its own.
        process: corruption of the states.
        denoiser: the network.
        drop_condition: fraction of the samples whose condition is dropped, for classifier-free
            guidance; or one fraction for each part of the condition, by its key. With one
            fraction for all, the parts are dropped together; with one for each, independently,
            as several guidance scales need it.
        self_conditioning: how the denoiser receives its own last estimate; None for networks
            without self-conditioning.

    Raises:
        ValueError: if a fraction is not in [0, 1].
    """

    def __init__(
        self,
        domain: Domain,
        process: Process,
        denoiser: nn.Module,
        drop_condition: float | Mapping[Any, float] = 0.0,
        self_conditioning: SelfConditioning | None = None,
    ):
        super().__init__()
        several = drop_condition if isinstance(drop_condition, Mapping) else {"": drop_condition}
        for key, ratio in several.items():
            if not 0 <= ratio <= 1:
                raise ValueError(f"drop_condition {key} {ratio:g} is not in [0, 1]")
        self.domain, self.process, self.denoiser = domain, process, denoiser
        self.drop_condition, self.self_conditioning = drop_condition, self_conditioning
        # A distribution of times that learns is a module: registered, it is saved and moved too.
        self.times = getattr(process, "times", None)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the denoiser, where the work is done; see :meth:`torch.nn.Module.compile`."""
        self.denoiser.compile(*args, **kwargs)

    def losses(self, batch: Any, rng: Rng | None) -> dict[str, Float[Tensor, " batch"]]:
        """Return the losses of each sample by name; training minimises the mean of their sum.

        Raises:
            ValueError: if an extra loss has a reserved name, or the condition has several parts
                and none of them is declared droppable, or only masks, which are never dropped.
        """
        on = device_type(self.denoiser)
        with full_precision(on):
            encoded = self._encoded(batch, rng)
            level = self.process.draw_level(len(encoded.x0), rng).to(encoded.x0.device)
            corrupted = self.process.corrupt(encoded.x0, level, rng, encoded.mask)
            condition = self._condition(encoded.condition, len(encoded.x0), rng)
        read = self._read(corrupted, condition, rng, encoded.mask)
        output = self.denoiser(read, level, condition)
        with full_precision(on):
            output = output.to(dtype_beside(encoded.x0))
            target = self.domain.target(encoded, corrupted, self.process)
            loss = self.process.loss(output, target, encoded.mask)
            extra = self._extra_losses(encoded, corrupted, output, TAKEN)
        return {"denoising": loss, **extra}

    def _extra_losses(
        self, encoded: Encoded, corrupted: Any, output: Any, reserved: Set[str]
    ) -> dict[str, Float[Tensor, " batch"]]:
        """Return the domain's own losses, of the estimate that is made for them alone.

        Raises:
            ValueError: if one has a reserved name.
        """
        if getattr(type(self.domain), "extra_losses", None) is Domain.extra_losses:
            return {}  # an estimate of tokens can cost as much memory as the loss
        process = self._masked(encoded.mask)
        estimate = process.estimate(output, corrupted.xt, corrupted.level)
        extra = self._losses_of_estimate(encoded, corrupted, estimate)
        taken = sorted(extra.keys() & reserved)
        if taken:
            raise ValueError(
                f"{type(self.domain).__name__}.extra_losses: the name {taken[0]!r} is reserved in "
                "the losses and the log; rename this loss"
            )
        return extra

    def _losses_of_estimate(
        self, encoded: Encoded, corrupted: Any, estimate: Any
    ) -> dict[str, Float[Tensor, " batch"]]:
        return self.domain.extra_losses(encoded, corrupted, estimate, self.process)

    def _encoded(self, batch: Any, rng: Rng | None) -> Encoded:
        encoded = self.domain.encode(batch, rng)
        if not isinstance(encoded, Encoded):
            raise TypeError(
                f"{type(self.domain).__name__}.encode returned a {type(encoded).__name__}: "
                "return Encoded(clean, condition, mask)"
            )
        return encoded

    def _condition(self, condition: Condition, batch: int, rng: Rng | None) -> Condition:
        drop = self.drop_condition
        if condition is None or drop == 0:
            return condition
        if isinstance(drop, Mapping):
            draws = uniform((batch, len(drop)), rng)
            rows = {key: draws[:, i] < ratio for i, (key, ratio) in enumerate(drop.items())}
            return drop_condition(condition, rows)
        return drop_condition(
            condition, uniform((batch,), rng) < drop, getattr(self.domain, "droppable", None)
        )

    def _masked(self, mask: Any, rows: Tensor | None = None) -> Any:
        """Return the process of (some rows of) the real states, where estimates depend on that."""
        masked = getattr(self.process, "masked", None)
        if masked is None:
            return self.process
        if mask is not None and rows is not None:
            mask = mask.expand(len(rows), *mask.shape[1:])[rows]
        return masked(mask)

    def _read(
        self,
        corrupted: Corruption,
        condition: Condition,
        rng: Rng | None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Evaluate the denoiser on the noisy states, with self-conditioning where it is on."""
        xt, level, how = corrupted.xt, corrupted.level, self.self_conditioning
        if how is None:
            return xt
        cond = (uniform((len(xt),), rng) < how.ratio).to(xt.device)
        known = how.known_positions(xt, rng)
        last = torch.zeros_like(xt) if known is None else self._shown(corrupted, condition) * known
        if bool(cond.any()):
            part, target_device = xt[cond].detach(), level[cond]
            about = map_condition(lambda one: one[cond.to(one.device)], condition)
            with torch.no_grad():
                output = self.denoiser(how.concat(part, last[cond]), target_device, about)
                process = self._masked(mask, cond)
                estimate = process.estimate(output.to(part.dtype), part, target_device)
                x0 = self.domain.project(estimate, part, target_device, about).x0
                last[cond] = x0 if known is None else torch.where(known[cond], last[cond], x0)
        return how.concat(xt, last)

    @torch.no_grad()
    def _shown(self, corrupted: Corrupted, condition: Condition) -> Tensor:
        """Return the clean states as sampling would feed them back: projected like estimates."""
        truth = Estimate(corrupted.x0, corrupted.noise)
        return self.domain.project(truth, corrupted.xt, corrupted.level, condition).x0


def dtype_beside(x0: Tensor) -> torch.dtype:
    """Return the dtype of predictions: that of the states, unless these are tokens."""
    return x0.dtype if x0.is_floating_point() else torch.float32


def full_precision(kind: str) -> AbstractContextManager[Any]:
    """Return a block without autocast, at no cost where autocast is off."""
    if torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def device_type(module: nn.Module) -> str:
    """Return the kind of device that a module is on."""
    return next(module.parameters()).device.type

"""Training task on joint states: a domain of several parts, a joint process and one network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from multidiff.core.joint.level import batch_of
from multidiff.core.joint.process import JointProcess, check_outputs
from multidiff.core.protocols import Condition, Domain, Encoded
from multidiff.core.random import Rng
from multidiff.core.task import TAKEN, DiffusionTask, device_type, dtype_beside, full_precision


class JointDomain(Domain):
    """Several domains as one, each of which encodes its part of the same batch.

    Args:
        parts: domain of each part. Their conditions become a dict by the parts' names.
    """

    def __init__(self, parts: Mapping[str, Domain]):
        self.parts = dict(parts)

    def encode(self, batch: Any, rng: Rng | None) -> Encoded:
        """Return the clean state of each part."""
        found = {name: one.encode(batch, rng) for name, one in self.parts.items()}
        conditions = {n: one.condition for n, one in found.items() if one.condition is not None}
        masks = {name: one.mask for name, one in found.items() if one.mask is not None}
        x0 = {name: one.x0 for name, one in found.items()}
        return Encoded(x0, conditions or None, masks or None)

    def decode(self, state: Mapping[str, Tensor], condition: Condition = None) -> dict[str, Any]:
        """Return the media of each part."""
        about = condition if isinstance(condition, Mapping) else {}
        return {name: one.decode(state[name], about.get(name)) for name, one in self.parts.items()}


class JointTask(DiffusionTask):
    """Denoising of joint states, each part at a level of its own.

    ``domain.encode`` returns dicts of states and masks by part, as
    :class:`JointDomain` does; the losses have the names of the parts.

    Args:
        domain: media to joint states.
        process: process of each part.
        denoiser: network, from a dict of noisy states to a dict of outputs.
        drop_condition: see :class:`~multidiff.core.task.DiffusionTask`. The parts of the state
            themselves are dropped by their levels, not by this.

    Raises:
        ValueError: if a part has a name that is reserved in the log.
    """

    def __init__(
        self,
        domain: Domain,
        process: JointProcess,
        denoiser: nn.Module,
        drop_condition: float | Mapping[Any, float] = 0.0,
    ):
        super().__init__(domain, process, denoiser, drop_condition)  # pyright: ignore[reportArgumentType]
        taken = sorted(TAKEN & process.parts.keys())
        if taken:
            raise ValueError(
                f"a part is named {taken[0]!r}, which is reserved in the log: rename it"
            )
        # Distributions of times that learn are modules: registered, they are saved and moved too.
        times = {name: getattr(one, "times", None) for name, one in process.parts.items()}
        self.part_times = nn.ModuleDict(
            {name: one for name, one in times.items() if isinstance(one, nn.Module)}
        )

    def losses(self, batch: Any, rng: Rng | None) -> dict[str, Float[Tensor, " batch"]]:
        """Return the loss of each part for each sample, by the part's name.

        Raises:
            TypeError: if the domain or the network does not return a dict.
            ValueError: if a part is missing or of another batch size.
        """
        process: Any = self.process
        kind = device_type(self.denoiser)
        with full_precision(kind):
            encoded = self._encoded(batch, rng)
            x0: Any = encoded.x0
            size = batch_of(f"{type(self.domain).__name__}.encode", x0, process.parts)
            level = process.draw_level(size, rng).to(next(iter(x0.values())).device)
            corrupted = process.corrupt(x0, level, rng, encoded.mask)
            condition = self._condition(encoded.condition, size, rng)
        output = self.denoiser(corrupted.xt, level, condition)
        check_outputs(output, process.parts)
        with full_precision(kind):
            output = {name: one.to(dtype_beside(x0[name])) for name, one in output.items()}
            losses = process.losses(output, corrupted, encoded.mask)
            extra = self._extra_losses(encoded, corrupted, output, TAKEN | losses.keys())
        return {**losses, **extra}

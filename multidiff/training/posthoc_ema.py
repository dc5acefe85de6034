"""Post-hoc EMA (Karras et al. 2024, arXiv 2312.02696): averages of any width, after training.

The average of relative width ``sigma_rel`` at step ``t`` weights the network of step ``tau`` by the
power-function profile ``p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1)`` (section 3.1). Training
keeps two such averages and writes snapshots of them; the average of another width is the linear
combination of snapshots whose profile is nearest to its own by least squares (section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from multidiff.models.weights import read_tensors, save_tensors
from multidiff.training.shards import whole
from multidiff.training.state import copy_whole
from multidiff.utils.errors import InputError
from multidiff.utils.files import atomic_write
from multidiff.utils.readers import read_json, reading

FOLDER = "posthoc_ema"
WIDEST = 12**-0.5  # of a uniform average, gamma 0
LARGEST_ERROR = 0.2


@dataclass(frozen=True)
class PosthocEMA:
    """Averages that are kept during training for a reconstruction afterwards.

    Attributes:
        sigma_rel: relative widths of the averages that are kept, two or more.
        snapshot_every: number of steps between snapshots of them.

    Raises:
        ValueError: if a width is not in (0, 0.288), two are equal, or there is only one.
    """

    sigma_rel: tuple[float, ...] = (0.05, 0.10)
    snapshot_every: int = 1000

    def __post_init__(self) -> None:
        for width in self.sigma_rel:
            gamma_of(width)
        if len({*self.sigma_rel}) < max(2, len(self.sigma_rel)):
            raise ValueError(f"sigma_rel {self.sigma_rel}: give two or more different widths")
        if self.snapshot_every < 1:
            raise ValueError(f"snapshot_every {self.snapshot_every}: must be at least 1")


def gamma_of(sigma_rel: float) -> float:
    """Return the exponent of the profile of a relative width (section 3.1).

    Raises:
        ValueError: if the width is not in (0, 0.288).
    """
    if not 0 < sigma_rel < WIDEST:
        raise ValueError(f"sigma_rel {sigma_rel:g}: must be in (0, {WIDEST:.3f})")
    inverse = sigma_rel**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


class PowerAverages:
    """The averages of a run whose profiles are power functions.

    Args:
        settings: their widths.
        module: module whose parameters are averaged.
    """

    def __init__(self, settings: PosthocEMA, module: nn.Module):
        self.settings = settings
        self._followed: list[Tensor] = [*module.parameters()]
        self._gammas = {width: gamma_of(width) for width in settings.sigma_rel}
        self.shadows = {
            width: {name: one.detach().clone() for name, one in module.named_parameters()}
            for width in settings.sigma_rel
        }

    def update(self, step: int) -> None:
        """Take in the weights after a step, from 1 (section 3.1)."""
        for width, gamma in self._gammas.items():
            average = get_ema_multi_avg_fn((1 - 1 / step) ** (gamma + 1))
            average([*self.shadows[width].values()], self._followed, step)

    def tensors(self) -> dict[str, Tensor]:
        """Return the averages, gathered whole, by width and name; every process must call it."""
        return {
            f"{width:g}/{name}": whole(value)
            for width, shadow in self.shadows.items()
            for name, value in shadow.items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the averages of :meth:`tensors`.

        Raises:
            InputError: if they are missing: averages cannot begin in the middle of a run.
        """
        for width, shadow in self.shadows.items():
            for name, value in shadow.items():
                found = tensors.get(f"{width:g}/{name}")
                if found is None:
                    raise InputError(
                        f"trainer.posthoc_ema: the checkpoint holds no average of width {width:g}; "
                        "the averages of a run begin at its first step"
                    )
                copy_whole(found, value)

    def is_due(self, step: int, last: int) -> bool:
        """Return whether a snapshot is taken after a step."""
        return step % self.settings.snapshot_every == 0 or step == last


def write_snapshot(run: Path, step: int, tensors: Mapping[str, Tensor]) -> None:
    """Write the averages at a step into a run's folder.

    Raises:
        InputError: if the system refuses.
    """
    with atomic_write(run / FOLDER / f"{step:08d}.safetensors") as partial:
        save_tensors(tensors, partial)


def drop_snapshots_beyond(run: Path, step: int) -> None:
    """Delete the snapshots of an earlier attempt that went further than the run resumes from."""
    for number, path in _snapshots(run).items():
        if number > step:
            path.unlink()


@dataclass(frozen=True)
class Reconstruction:
    """An average put together from snapshots.

    Attributes:
        parts: file, width and factor of each average that is combined.
        step: step of the average.
        error: distance of the combined profile from the wanted one, relative to the norm of that
            one, both in the mean-square sense.
    """

    parts: list[tuple[Path, str, float]]
    step: int
    error: float

    def tensors(self) -> dict[str, Tensor]:
        """Return the averaged weights by name."""
        sums: dict[str, Tensor] = {}
        for path, width, factor in self.parts:
            for name, value in _averages_in(path, width):
                added = value.double() * factor
                sums[name] = sums[name].add_(added) if name in sums else added
        return {name: value.float() for name, value in sums.items()}


def reconstruction(run: Path, sigma_rel: float, step: int | None = None) -> Reconstruction:
    """Return how an average of a width that was not kept is made from the snapshots of a run.

    Args:
        run: folder of the run.
        sigma_rel: relative width.
        step: step of the average; the last snapshot's if None.

    Raises:
        InputError: if there are no snapshots, the width is out of range, or no combination of
            profiles comes near it.
    """
    paths = _snapshots(run)
    step = max(paths, default=0) if step is None else step
    paths = {number: path for number, path in paths.items() if number <= step}
    if not paths:
        raise InputError(
            f"{run / FOLDER}: has no snapshots up to step {step}; train with trainer.posthoc_ema"
        )
    try:
        wanted = (step, gamma_of(sigma_rel))
    except ValueError as error:
        raise InputError(str(error)) from error
    averages = [(number, path, width) for number, path in paths.items() for width in _widths(path)]
    profiles = [(number, gamma_of(float(width))) for number, _, width in averages]
    factors, error = combination(profiles, wanted)
    if error > LARGEST_ERROR:
        raise InputError(
            f"{run / FOLDER}: {len(averages)} averages do not combine to width {sigma_rel:g} at "
            f"step {step}, the nearest profile is off by {error:.0%}; choose a wider one, or train "
            "with a smaller trainer.posthoc_ema.snapshot_every"
        )
    named = zip(averages, factors, strict=True)
    return Reconstruction(
        [(path, width, factor) for (_, path, width), factor in named], step, error
    )


def reconstruction_at(checkpoint: Path, sigma_rel: float) -> Reconstruction:
    """Return the reconstruction at the step of a checkpoint, from its run's snapshots.

    Raises:
        InputError: see :func:`reconstruction`.
    """
    step = int(read_json(checkpoint / "state.json")["step"])
    return reconstruction(checkpoint.parent.parent, sigma_rel, step)


def combination(
    profiles: Sequence[tuple[float, float]], wanted: tuple[float, float]
) -> tuple[list[float], float]:
    """Return the factors of the combination nearest to a profile, and its relative distance.

    The factors sum to 1, as every profile integrates to 1: constant weights are kept exactly.

    Args:
        profiles: last step and exponent of each profile.
        wanted: those of the wanted one.
    """
    products = np.array([[_product(one, other) for other in profiles] for one in profiles])
    aimed = np.array([_product(one, wanted) for one in profiles])
    norm = _product(wanted, wanted)
    ones = np.ones((len(profiles), 1))
    system = np.block([[products / norm, ones], [ones.T, np.zeros((1, 1))]])
    found = np.linalg.lstsq(system, np.append(aimed / norm, 1.0), rcond=1e-14)[0][:-1]
    squared = found @ products @ found - 2 * found @ aimed + norm
    return found.tolist(), float(np.sqrt(max(squared / norm, 0.0)))


def _product(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Return the integral of the product of two profiles, by logarithms."""
    (t, gamma), (u, delta) = one, other
    power = (gamma + delta + 1) * np.log(min(t, u))
    scale = (gamma + 1) * np.log(t) + (delta + 1) * np.log(u)
    return float((gamma + 1) * (delta + 1) / (gamma + delta + 1) * np.exp(power - scale))


def _snapshots(run: Path) -> dict[int, Path]:
    found = sorted((run / FOLDER).glob("*.safetensors"))
    return {int(path.stem): path for path in found if path.stem.isdigit()}


def _widths(path: Path) -> list[str]:
    with reading(path, "is not a snapshot of averages"):
        return sorted({name.partition("/")[0] for name in read_tensors(path)[0]}, key=float)


def _averages_in(path: Path, width: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in read_tensors(path)[0].items():
        if name.startswith(f"{width}/"):
            yield name.removeprefix(f"{width}/"), value

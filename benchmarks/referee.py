"""Schedulers of any library through exact networks: who stays on the path, what few steps cost.

The network is the exact one of a one-dimensional mixture of normals, the start 2000 quantiles of
the noise, so nothing is random. The figure is W1, the mean distance of the sorted ends from the
mixture's quantiles, at 5, 8, 10 and 20 evaluations of the network, on the variance-preserving path
(1000 linear betas), rectified flow and EDM's path. Each library has a row for its best single
sampler and grid (by the geometric mean of the four) and, under "best of any", the least W1 at each
count over all of its samplers and grids; multidiff has one for its documented default. The ratio
is to the best of any of the other libraries. ``referee: path`` answers another question: a network
that knows the clean state and the noise is evaluated along the way, and the figure is the largest
distance of the state from ``alpha x0 + sigma noise`` at the level that the network reads.

The mixture "held out" was not looked at when grids and samplers were chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import geometric_mean

import torch
from torch import Tensor

from benchmarks.mixture import HELD_OUT, TUNED, Mixture, even_quantiles
from benchmarks.referee_peers import Network, Walk, peers, walked
from benchmarks.timing import Row, on_threads
from multidiff.core.gaussian.edm import VarianceExploding
from multidiff.core.gaussian.flow import RectifiedFlow, shifted_timesteps
from multidiff.core.gaussian.multistep import FlowABM
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.schedules import BetaSchedule, NoiseSchedule
from multidiff.core.sample import sample

PART = "referee"
EVALUATIONS = (5, 8, 10, 20)
LENGTHS = (7, 10, 13, 30, 50)
QUANTILES = 2000
PATHS: dict[str, NoiseSchedule] = {
    "vp": BetaSchedule.linear(),
    "flow": RectifiedFlow(),
    "edm": VarianceExploding(),
}
OURS, LABEL = "multidiff", "FlowABM, shifted_timesteps"  # on every path


def measure(threads: int, rounds: int, *, mixture: str = "both", path: str = "all") -> list[Row]:
    """Return W1 of every library, and distances from the path.

    Args:
        threads: of the CPU.
        rounds: not used, since nothing is random.
        mixture: "tuned", "held out" or both.
        path: "vp", "flow" or "edm", or all.
    """
    laws = {"tuned": TUNED, "held out": HELD_OUT}
    chosen = laws if mixture == "both" else {mixture: laws[mixture]}
    rows: list[Row] = []
    with on_threads(threads), torch.no_grad():
        for name in PATHS if path == "all" else (path,):
            for law in chosen:
                rows += _rows(name, law, laws[law])
            rows += _path_rows(name)
    return rows


def exact(mixture: Mixture, calls: list[int]) -> Network:
    """Return the exact x0 estimate of a mixture, which counts its calls."""

    def network(xt: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        calls[0] += 1
        return mixture.x0(xt.double(), alpha.double(), sigma.double())

    return network


def distance(mixture: Mixture, walk: Walk, evaluations: int) -> float | None:
    """Return W1 of a walk; None where it fails or evaluates more often."""
    calls, levels = [0], even_quantiles(QUANTILES)
    start = torch.special.ndtri(levels)[:, None]
    end = walked(walk, exact(mixture, calls), start, evaluations)
    if end is None or calls[0] > evaluations:
        return None
    return float((end[:, 0].sort().values - mixture.quantiles(levels)).abs().mean())


def ours(path: str) -> Walk:
    """Return the walk of this package's default on a path."""
    process = GaussianProcess(PATHS[path], "x0")

    def walk(network: Network, noise: Tensor, evaluations: int) -> Tensor:
        def denoiser(xt, level, condition=None):
            return network(xt, level.alpha, level.sigma)

        times = shifted_timesteps(evaluations)
        start = noise * process.start_scale(process.levels(times)[0])
        return sample(process, denoiser, FlowABM(), noise.shape, times, start=start)

    return walk


def _rows(path: str, law: str, mixture: Mixture) -> list[Row]:
    own = [distance(mixture, ours(path), count) for count in EVALUATIONS]
    found: dict[str, dict[str, list[float | None]]] = {}
    for library, system, walk in peers(path):
        each = [distance(mixture, walk, count) for count in EVALUATIONS]
        found.setdefault(library, {})[system] = each
    least = [_least([one[i] for systems in found.values() for one in systems.values()])
             for i in range(len(EVALUATIONS))]  # fmt: skip
    rows = _case_rows(path, law, f"{OURS}: {LABEL}", own, least)
    for library, systems in found.items():
        whole = {name: [x for x in one if x is not None] for name, one in systems.items()}
        whole = {name: one for name, one in whole.items() if len(one) == len(EVALUATIONS)}
        if whole:
            best = min(whole, key=lambda name: geometric_mean(whole[name]))
            rows += _case_rows(path, law, f"{library}: {best}", whole[best], least)
        any_of = [_least([one[i] for one in systems.values()]) for i in range(len(EVALUATIONS))]
        rows += _case_rows(path, law, f"{library}: best of any", any_of, least)
    return rows


def _least(values: list[float | None]) -> float | None:
    return min((one for one in values if one is not None), default=None)


def _case_rows(
    path: str,
    law: str,
    system: str,
    values: list[float | None] | list[float],
    least: list[float | None],
) -> list[Row]:
    rows = []
    for count, value, best in zip(EVALUATIONS, values, least, strict=True):
        ratio = None if value is None or not best else value / best
        case = f"{path}, {law}, {count} evaluations"
        rows.append(Row(PART, case, system, "W1", value, value, value, ratio))
    return rows


def _path_rows(path: str) -> list[Row]:
    """Return how far each library's systems leave the path: the nearest and the three furthest."""
    found: dict[str, dict[str, float]] = {OURS: {LABEL: off_path(ours(path))}}
    for library, system, walk in peers(path):
        if "REAB" not in system:  # integrates another quantity, which a known pair does not fix
            found.setdefault(library, {})[system] = off_path(walk)
    rows = []
    for library, systems in found.items():
        order = sorted(
            (name for name, one in systems.items() if math.isfinite(one)), key=systems.__getitem__
        )
        for name in dict.fromkeys([*order[:1], *order[-3:]]):
            one = systems[name]
            rows.append(Row(f"{PART}: path", path, f"{library}: {name}", "distance", one, one, one))
    return rows


def off_path(walk: Walk) -> float:
    """Return the largest distance from the path of known pairs, over several numbers of steps."""
    rng = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 6, 1, generator=rng, dtype=torch.float64)
    worst = 0.0
    for steps in LENGTHS:
        apart = [0.0]
        network = _watching(x0, noise, apart)
        end = walked(walk, network, noise, steps)
        if end is None:
            return math.inf
        worst = max(worst, apart[0])
    return worst


def _watching(x0: Tensor, noise: Tensor, apart: list[float]) -> Callable[..., Tensor]:
    """Return a network that knows the pair and notes how far the states are from the path."""
    first: list[Tensor] = []

    def network(xt: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        if not first:
            # The pair whose path leads through the start: walks start from noise alone.
            first.append((xt.double() - alpha * x0) / sigma)
        away = xt.double() - alpha * x0 - sigma * first[0]
        apart[0] = max(apart[0], float((away / torch.hypot(alpha, sigma)).abs().max()))
        return x0

    return network

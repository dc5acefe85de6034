"""Search for the best few-step inference schedules on held-out recordings.

Coordinate descent: every level and every number of projections in turn is changed a little,
and the change is kept if the sound comes nearer to the recordings. It takes a few dozen
evaluations, where the published grid searches take hundreds (WaveGrad, appendix; 9^6 for six
steps).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from multidiff.audio.metrics.evaluation import Clip, means
from multidiff.audio.metrics.pairs import log_mel_l1
from multidiff.audio.metrics.spectral import spectral_distance
from multidiff.audio.vocoder.inference_schedule import InferenceSchedule
from multidiff.audio.vocoder.model import Vocoder

Objective = Callable[[InferenceSchedule], float]


def distance_on(vocoder: Vocoder, clips: Sequence[Clip], seed: int = 0) -> Objective:
    """Return an objective: spectral distance plus log-mel difference of a schedule's output."""

    def objective(plan: InferenceSchedule) -> float:
        rows = []
        for clip in clips:
            made = vocoder.synthesize(clip.mel, mel_scale="preset", plan=plan, seed=seed)[0].cpu()
            spectral = float(spectral_distance(made[None], clip.wave[None]))
            rows.append({"all": spectral + log_mel_l1(clip.wave, made, vocoder.preset)})
        return means(rows)["all"]

    return objective


def search(
    objective: Objective,
    start: InferenceSchedule,
    *,
    bounds: tuple[float, float],
    rounds: int = 2,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[InferenceSchedule, float]:
    """Return the best schedule found from a start, with equal numbers of steps and projections.

    Args:
        objective: function to minimise.
        start: schedule to start from.
        bounds: least and greatest log SNR that the model was trained on.
        rounds: number of passes over the coordinates; the changes halve with each.
        report: function called with a line for every improvement.
    """
    best, least = start, objective(start)
    report(f"start {least:.4f} {_told(best)}")
    for number in range(rounds):
        for move in moves(best, 1.5 / 2**number, 2 if number == 0 else 1):
            plan = move(best)
            if plan is None or plan.log_snrs[0] < bounds[0] or plan.log_snrs[-1] > bounds[1]:
                continue
            value = objective(plan)
            if value < least:
                best, least = plan, value
                report(f"round {number + 1} {least:.4f} {_told(best)}")
    return best, least


Move = Callable[[InferenceSchedule], "InferenceSchedule | None"]


def moves(plan: InferenceSchedule, shift: float, count: int) -> Iterator[Move]:
    """Yield every small change of a schedule: a level, or projections moved to another step."""
    steps = range(plan.num_steps)
    for where in steps:
        for change in (-shift, shift):
            yield lambda now, p=where, c=change: _with_level(now, p, now.log_snrs[p] + c)
    for giver in [*steps, None]:
        for taker in [*steps, None]:
            if giver != taker and (giver is None or taker is None or abs(giver - taker) == 1):
                yield lambda now, g=giver, t=taker: _with_projections(now, g, t, count)


def _with_level(plan: InferenceSchedule, where: int, level: float) -> InferenceSchedule | None:
    levels = list(plan.log_snrs)
    levels[where] = level
    grows = all(a < b for a, b in itertools.pairwise(levels))
    return replace(plan, log_snrs=tuple(levels)) if grows else None


def _with_projections(
    plan: InferenceSchedule, giver: int | None, taker: int | None, count: int
) -> InferenceSchedule | None:
    """Return the schedule with projections moved between steps (None: the final projections)."""
    projections, final_projections = list(plan.projections), plan.final_projections
    has = final_projections if giver is None else projections[giver]
    moved = min(count, has)
    if moved == 0:
        return None
    if giver is None:
        final_projections -= moved
    else:
        projections[giver] -= moved
    if taker is None:
        final_projections += moved
    else:
        projections[taker] += moved
    return replace(plan, projections=tuple(projections), final_projections=final_projections)


def _told(plan: InferenceSchedule) -> str:
    levels = " ".join(f"{level:.2f}" for level in plan.log_snrs)
    return f"levels {levels} projections {list(plan.projections)} + {plan.final_projections}"

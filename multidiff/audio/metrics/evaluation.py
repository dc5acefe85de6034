"""A vocoder's scores on recordings, with baselines for comparison."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from multidiff.audio.data.band import band_limit_hz
from multidiff.audio.data.sound import write_sound
from multidiff.audio.data.sources import AudioSource
from multidiff.audio.mel import MelPreset
from multidiff.audio.metrics.pairs import METRICS, compare, griffin_lim, residual_kurtosis, voiced
from multidiff.audio.vocoder.inference_schedule import InferenceSchedule, VocoderSamplingConfig
from multidiff.audio.vocoder.model import Vocoder
from multidiff.audio.vocoder.projection import MelProjection
from multidiff.core.random import placed_normal
from multidiff.utils.files import atomic_write

# Of the baselines; the projection alone otherwise has as many as the plan.
GRIFFIN_LIM_ITERATIONS = PROJECTION_ITERATIONS = 32


@dataclass(frozen=True)
class Clip:
    """A recording and its mel; ``band_hz`` is half of its rate, if it is known."""

    name: str
    wave: Float[Tensor, " samples"]
    mel: Float[Tensor, "mels frames"]
    band_hz: float | None = None


Maker = Callable[[Clip], Tensor]


@dataclass(frozen=True)
class Scores:
    """Metrics of one system.

    Attributes:
        system: name of the system.
        items: metrics of each clip by name.
        real_time_factor: seconds of computation for a second of sound; NaN for recordings.
    """

    system: str
    items: Sequence[Mapping[str, float]]
    real_time_factor: float = math.nan

    @property
    def metrics(self) -> dict[str, float]:
        """Means by name; clips for which a metric is undefined are excluded from it."""
        return means(self.items)


def clips_of(data: str, preset: MelPreset, held_out_every: int = 0) -> list[Clip]:
    """Return the recordings of a source, cut to whole hops.

    Args:
        data: see :class:`~multidiff.audio.data.segments.AudioSource`.
        preset: preset of their mels.
        held_out_every: n to return only every n-th recording, which such a recipe holds out.

    Raises:
        InputError: if there are none.
    """
    source = AudioSource(data, held_out_every=held_out_every)
    clips = []
    for recording in source.recordings(held_out=None if held_out_every == 0 else True):
        wave = recording.read(preset.sample_rate_hz)
        wave = wave[: len(wave) // preset.hop_length * preset.hop_length]
        mel = preset.mel(wave[None])[0]
        clips.append(Clip(recording.name, wave, mel, recording.rate_hz / 2))
    return clips


def evaluate(
    vocoder: Vocoder,
    clips: Sequence[Clip],
    config: VocoderSamplingConfig | None = None,
    seed: int = 0,
    folder: Path | None = None,
) -> list[Scores]:
    """Return scores of the vocoder and of baselines, and the recordings' own kurtosis.

    The baselines are the network without the projection (where the vocoder projects), at evenly
    spaced levels, since searched ones are for both; the projection without the network; and
    Griffin-Lim.

    Args:
        vocoder: the model.
        clips: recordings to synthesise again.
        config: options of synthesis; the model's own by default.
        seed: random seed of each clip.
        folder: folder to write all sounds to, in a folder for each system.
    """
    preset, plan = vocoder.preset, vocoder.plan(config)
    rate = preset.sample_rate_hz
    flags = [voiced(clip.wave, rate) for clip in clips]

    options = vocoder.sampling if config is None else config

    def network(plan: InferenceSchedule) -> Maker:
        def make(clip: Clip) -> Tensor:
            edge = band_limit_hz(options.band_limit, clip.band_hz, preset)
            limit = None if edge is None else f"{edge:g}"
            made = vocoder.synthesize(
                clip.mel, mel_scale="preset", plan=plan, config=options, seed=seed, band_limit=limit
            )
            return made[0].cpu()

        return make

    makers = {f"{plan.num_steps} evaluations": network(plan)}
    iterations = sum(plan.projections) + plan.final_projections
    if iterations:
        bare = options.replace(projections=0, final_projections=0, steps=plan.num_steps).plan()
        makers[f"network alone, {plan.num_steps} evaluations"] = network(bare)
    iterations = iterations or PROJECTION_ITERATIONS
    name = f"projection alone, {iterations} iterations"
    makers[name] = projection_alone(vocoder, iterations, seed)
    makers[f"Griffin-Lim, {GRIFFIN_LIM_ITERATIONS} iterations"] = lambda clip: griffin_lim(
        clip.mel, preset, len(clip.wave)
    )
    scores = [scored(name, clips, preset, make, flags, folder) for name, make in makers.items()]
    kurtoses = [
        residual_kurtosis(clip.wave, rate, own) for clip, own in zip(clips, flags, strict=True)
    ]
    return [*scores, Scores("recordings", [{"residual_kurtosis": one} for one in kurtoses])]


def projection_alone(vocoder: Vocoder, iterations: int, seed: int = 0) -> Maker:
    """Return the baseline: the mel projection of the noise that the network starts from."""
    projection = MelProjection(vocoder.preset)

    def make(clip: Clip) -> Tensor:
        mel = clip.mel[None]
        shape = vocoder.domain.state_shape(1, mel.shape[2])
        noise = placed_normal(shape[1:], 0, seed)[None]
        return projection(vocoder.domain.to_wave(noise, mel), mel, iterations)[0]

    return make


def scored(
    system: str,
    clips: Sequence[Clip],
    preset: MelPreset,
    make: Maker,
    flags: Sequence[np.ndarray] | None = None,
    folder: Path | None = None,
) -> Scores:
    """Score a function's output for the clips.

    Args:
        system: name of the system.
        clips: the recordings.
        preset: preset of their mels.
        make: function from a clip to the system's sound.
        flags: voiced frames of each recording, if they are known.
        folder: folder to write the sounds to, in a folder named after the system.
    """
    rows, wall, seconds = [], 0.0, 0.0
    for number, clip in enumerate(clips):
        began = time.perf_counter()
        made = make(clip)
        wall += time.perf_counter() - began
        seconds += len(clip.wave) / preset.sample_rate_hz
        rows.append(compare(clip.wave, made, preset, None if flags is None else flags[number]))
        if folder is not None:
            path = folder / file_name(system) / f"{number:04d}-{Path(clip.name).stem}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_sound(path, iter([made.numpy()]), preset.sample_rate_hz)
    return Scores(system, rows, wall / seconds)


def file_name(system: str) -> str:
    """Return the name of a system's folder."""
    return system.replace(", ", "-").replace(" ", "-")


def write_items(path: Path, clips: Sequence[Clip], scores: Sequence[Scores]) -> None:
    """Write a table (CSV) with a row for each clip and system; undefined metrics are empty.

    Raises:
        InputError: if the system refuses.
    """
    with atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["clip", "system", *METRICS])
        for number, clip in enumerate(clips):
            for one in scores:
                values = [one.items[number].get(name, math.nan) for name in METRICS]
                shown = ["" if math.isnan(value) else f"{value:.6g}" for value in values]
                table.writerow([clip.name, one.system, *shown])


def means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each metric over the rows where it is defined."""
    found = {}
    for name in rows[0]:
        values = [row[name] for row in rows if not math.isnan(row[name])]
        found[name] = sum(values) / len(values) if values else math.nan
    return found

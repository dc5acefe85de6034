"""A vocoder's scores on recordings, with baselines for comparison."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from multidiff.audio.data.sources import AudioSource
from multidiff.audio.mel import MelPreset
from multidiff.audio.metrics.pairs import compare, griffin_lim
from multidiff.audio.vocoder.inference_schedule import VocoderSamplingConfig
from multidiff.audio.vocoder.model import Vocoder
from multidiff.audio.vocoder.projection import MelProjection
from multidiff.core.random import placed_normal

GRIFFIN_LIM_ITERATIONS = 32


@dataclass(frozen=True)
class Clip:
    """A recording and its mel."""

    name: str
    wave: Float[Tensor, " samples"]
    mel: Float[Tensor, "mels frames"]


Maker = Callable[[Clip], Tensor]


@dataclass(frozen=True)
class Scores:
    """Mean metrics of one system.

    Attributes:
        system: name of the system.
        metrics: means by name; clips for which a metric is undefined are excluded from it.
        real_time_factor: seconds of computation for a second of sound.
    """

    system: str
    metrics: dict[str, float]
    real_time_factor: float


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
        clips.append(Clip(recording.name, wave, preset.mel(wave[None])[0]))
    return clips


def evaluate(
    vocoder: Vocoder,
    clips: Sequence[Clip],
    config: VocoderSamplingConfig | None = None,
    seed: int = 0,
) -> list[Scores]:
    """Return scores of the vocoder, of its projection without the network, and of Griffin-Lim."""
    preset, plan = vocoder.preset, vocoder.plan(config)

    def network(clip: Clip) -> Tensor:
        mel = clip.mel[None]
        return vocoder.synthesize(mel, mel_scale="preset", config=config, seed=seed)[0].cpu()

    systems = [scored(f"{plan.num_steps} evaluations", clips, preset, network)]
    iterations = sum(plan.projections) + plan.final_projections
    if iterations:
        name = f"projection alone, {iterations} iterations"
        systems.append(scored(name, clips, preset, projection_alone(vocoder, iterations, seed)))
    name = f"Griffin-Lim, {GRIFFIN_LIM_ITERATIONS} iterations"
    systems.append(
        scored(name, clips, preset, lambda clip: griffin_lim(clip.mel, preset, len(clip.wave)))
    )
    return systems


def projection_alone(vocoder: Vocoder, iterations: int, seed: int = 0) -> Maker:
    """Return the baseline: the mel projection of the noise that the network starts from."""
    projection = MelProjection(vocoder.preset)

    def make(clip: Clip) -> Tensor:
        mel = clip.mel[None]
        shape = vocoder.domain.state_shape(1, mel.shape[2])
        noise = placed_normal(shape[1:], 0, seed)[None]
        return projection(vocoder.domain.to_wave(noise, mel), mel, iterations)[0]

    return make


def scored(system: str, clips: Sequence[Clip], preset: MelPreset, make: Maker) -> Scores:
    """Score a function's output for the clips."""
    rows, wall, seconds = [], 0.0, 0.0
    for clip in clips:
        began = time.perf_counter()
        made = make(clip)
        wall += time.perf_counter() - began
        seconds += len(clip.wave) / preset.sample_rate_hz
        rows.append(compare(clip.wave, made, preset))
    return Scores(system, means(rows), wall / seconds)


def means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each metric over the rows where it is defined."""
    found = {}
    for name in rows[0]:
        values = [row[name] for row in rows if not math.isnan(row[name])]
        found[name] = sum(values) / len(values) if values else math.nan
    return found

"""The vocoder: a denoiser on the shared process, from mel spectrograms to waveforms."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, SupportsIndex, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.audio.data.band import AUTO, NONE, band_limit_hz, band_limited
from multidiff.audio.data.mel_input import Array, mel_batch, mel_chunk
from multidiff.audio.mel import MelPreset
from multidiff.audio.vocoder.adversarial import AdversarialTask
from multidiff.audio.vocoder.discriminator import SpectrogramDiscriminator
from multidiff.audio.vocoder.domains import SpectralDomain, SpeechDomain
from multidiff.audio.vocoder.inference_schedule import (
    InferenceSchedule,
    VocoderSamplingConfig,
    read_plans,
)
from multidiff.audio.vocoder.mdct_denoiser import MDCTDenoiser
from multidiff.audio.vocoder.program import program_of
from multidiff.audio.vocoder.projection import MelProjection
from multidiff.audio.vocoder.streaming import VocoderStream, faded_in, look_ahead_frames
from multidiff.core.gaussian.predictions import with_x0
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.rollout import RolloutTask
from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.protocols import Estimate, Projection
from multidiff.core.random import generators, mixed_seed, placed_normal
from multidiff.core.sample import Step, sample
from multidiff.core.task import DiffusionTask
from multidiff.models.hub_model import HubModel
from multidiff.models.program import Program
from multidiff.models.requests import Seed, checked_seeds
from multidiff.models.sampling_config import sampler_named
from multidiff.nn.convnext import bottlenecks
from multidiff.utils.errors import InputError

# Frames that a chunk sees beyond its ends; their output is discarded, except for the
# fade. Eight evaluations of the frame denoiser see 52 frames far, projections some more.
CONTEXT_FRAMES = 96
CHUNK_FRAMES = 864
FADE_SAMPLES = 512
# Options that say nothing of levels and projections, for which searched schedules stand.
FREE = ("steps", "sampler", "band_limit")


class MelSource(Protocol):
    """A mel spectrogram that is read piece by piece.

    That of a recording has half of the recording's rate as an attribute ``band_hz``.
    """

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        ...

    def frames(self, first: int, last: int) -> Float[Tensor, "1 mels frames"]:
        """Return the frames from ``first`` up to, not including, ``last``."""
        ...


class Vocoder(HubModel, nn.Module):
    """Mel spectrograms to waveforms.

    Args:
        domain: waveforms as states, and the mel preset.
        process: process that the denoiser is trained on.
        denoiser: the network; if it names a preset, it must be the domain's.
        sampling: default options of synthesis.
        rollout: fraction of the training samples whose noisy states are those that synthesis by
            these options visits (:class:`~multidiff.core.gaussian.rollout.RolloutTask`).

    Raises:
        ValueError: if the denoiser was made for another preset, or the sampler is unknown.
    """

    pipeline_tag = "audio-to-audio"
    writes_files = True  # samples are files, not lines

    def __init__(
        self,
        domain: SpeechDomain,
        process: GaussianProcess,
        denoiser: nn.Module,
        sampling: VocoderSamplingConfig | None = None,
        rollout: float = 0.0,
        discriminator: SpectrogramDiscriminator | None = None,
    ):
        super().__init__()
        made_for = getattr(denoiser, "preset", domain.preset)
        if made_for != domain.preset:
            raise ValueError(
                f"the denoiser is made for {made_for.name} mels, the domain for "
                f"{domain.preset.name}: set both to the same mel"
            )
        self.domain, self.process, self.denoiser = domain, process, denoiser
        self.sampling = VocoderSamplingConfig() if sampling is None else sampling
        self.rollout, self.discriminator = rollout, discriminator
        self.searched: dict[int, InferenceSchedule] = {}
        self.projection = MelProjection(domain.preset)

    @property
    def half_parts(self) -> tuple[str, ...]:
        """Beginnings of the names of weights that may have half precision."""
        return bottlenecks(self.denoiser, "denoiser")

    @property
    def preset(self) -> MelPreset:
        """Preset of the mels that it reads."""
        return self.domain.preset

    @property
    def device(self) -> torch.device:
        """Device that the model computes on."""
        return next(self.parameters()).device

    def task(self) -> DiffusionTask:
        """Return the training task."""
        parts = self.domain, self.process, self.denoiser
        if self.rollout == 0 and self.discriminator is None:
            return DiffusionTask(*parts)
        rollout = *parts, self.sampling.plan().times, self.rollout
        if self.discriminator is None:
            return RolloutTask(*rollout)
        return AdversarialTask(*rollout, self.discriminator)

    def program(self) -> Program:
        """Return the network for export (:func:`~multidiff.models.program.export_program`)."""
        return program_of(self)

    def metadata(self) -> dict[str, str]:
        """Return what must agree between the weights and a mel, kept in the weights' file."""
        low, high = self.preset.level_range
        return {
            "mel": self.preset.name,
            "sample_rate_hz": str(self.preset.sample_rate_hz),
            "level_range": f"{low:.4f} {high:.4f}",
            "mel_preset": json.dumps(self.preset.description(), sort_keys=True),
            "embedding_scale": str(getattr(self.denoiser, "embedding_scale", "none")),
        }

    def assets(self) -> dict[str, str]:
        """Return no assets: nothing is needed beside the weights."""
        return {}

    def load_assets(self, folder: Path) -> None:
        """Read searched plans from the model's folder."""
        self.searched = read_plans(folder)

    def plan(
        self, config: VocoderSamplingConfig | None = None, **overrides: Any
    ) -> InferenceSchedule:
        """Return the schedule of some options: the searched one for the number of steps, if any.

        Args:
            config: options of synthesis; the model's own by default. Levels or projections other
                than the model's own are made as they say.
            **overrides: single options in place of the config's.

        Raises:
            InputError: if an option is out of range.
            TypeError: if there is no option of a name.
        """
        config = (config or self.sampling).replace(**overrides)
        is_own = config.replace(**{name: getattr(self.sampling, name) for name in FREE}) == (
            self.sampling
        )
        if config.steps in self.searched and is_own and not {*config.overrides} - {*FREE}:
            return self.searched[config.steps]
        return config.plan()

    def log_snr_bounds(self) -> tuple[float, float]:
        """Return the noisiest and the cleanest level that the denoiser was trained on."""
        schedule = self.process.schedule
        cleanest = 1 / schedule.num_steps if schedule.num_steps else 0.0
        low, high = schedule.at(torch.tensor([1.0, cleanest], dtype=torch.float64)).log_snr.tolist()
        return low, high

    def synthesize(
        self,
        mel: Array,
        *,
        lengths: Sequence[int] | Tensor | None = None,
        mel_scale: str | None = None,
        plan: InferenceSchedule | None = None,
        seed: Seed = 0,
        config: VocoderSamplingConfig | None = None,
        first_frame: int = 0,
        on_step: Callable[[Step], None] | None = None,
        **overrides: Any,
    ) -> Float[Tensor, "batch samples"]:
        """Synthesise the waveforms of whole mels, or one piece each of longer ones.

        Args:
            mel: tensor or numpy array, ``(batch, mels, frames)`` or ``(mels, frames)``, of any
                float type.
            lengths: number of frames of each mel of a padded batch. The output for each mel
                equals that for the mel alone, followed by zeros for its padding.
            mel_scale: scale of its values, such as ``log10`` or ``range:-1:1:-11.5129:2``
                (:mod:`multidiff.audio.data.mel_scale`); ``preset`` takes them as they are. Where
                it is not given, values that cannot be the preset's levels are refused.
            plan: inference schedule, in place of the one that the options stand for.
            seed: random seed of the first sample; sample ``i`` of the batch has ``seed + i``, or
                the i-th of several. None draws one from the system.
            config: options of synthesis; the model's own, ``sampling``, by default.
            first_frame: first frame of the piece in the whole mel. The noise depends on the
                position, so overlapping pieces start from the same noise where they overlap.
            on_step: called after each step.
            **overrides: single options in place of the config's, by the names of
                :class:`~multidiff.audio.vocoder.inference_schedule.VocoderSamplingConfig`.

        Raises:
            InputError: if these cannot be mels of the model's preset, or the lengths are wrong.
            TypeError: if there is no option of a name.
        """
        mels = mel_batch(mel, self.preset, lengths, mel_scale)
        seeds = checked_seeds(seed, len(mels))
        config = (config or self.sampling).replace(**overrides)
        plan = self.plan(config) if plan is None else plan
        sizes = [one.shape[1] for one in mels]
        edge = band_limit_hz(config.band_limit, None, self.preset)
        longest = torch.as_tensor(mel).shape[-1]
        waves = torch.zeros(len(mels), self.preset.num_samples(longest), device=self.device)
        for size in sorted(set(sizes)):
            rows = [row for row, own in enumerate(sizes) if own == size]
            made = self._synthesized(
                torch.stack([mels[row] for row in rows]),
                [seeds[row] for row in rows],
                plan,
                config.sampler,
                first_frame,
                on_step,
            )
            made = band_limited(made, self.preset.sample_rate_hz, edge)
            waves[rows, : made.shape[1]] = made.to(waves)
        return waves

    @torch.no_grad()
    def _synthesized(
        self,
        mel: Float[Tensor, "batch mels frames"],
        seeds: Sequence[int],
        plan: InferenceSchedule,
        sampler: str,
        first_frame: int = 0,
        on_step: Callable[[Step], None] | None = None,
    ) -> Float[Tensor, "batch samples"]:
        """Synthesise the waveforms of checked mels of one length."""
        mel = mel.to(self.device)
        shape = self.domain.state_shape(len(mel), mel.shape[2])
        start = self.domain.state_start(first_frame)
        state = sample(
            self.process,
            self.denoiser,
            sampler_named(sampler),
            shape,
            plan.times,
            condition=mel,
            project=self._projection_on(mel, plan),
            rng=generators([mixed_seed(one, first_frame) for one in seeds]),
            start=torch.stack([placed_normal(shape[1:], start, one) for one in seeds]),
            device=self.device,
            on_step=on_step,
        )
        return self.projection(self.domain.to_wave(state, mel), mel, plan.final_projections)

    def _projection_on(self, mel: Tensor, plan: InferenceSchedule) -> Projection:
        def project(estimate: Estimate, xt: Tensor, level: NoiseLevel) -> Estimate:
            iterations = plan.projections_at(level)
            if iterations == 0:
                return estimate
            wave = self.projection(self.domain.to_wave(estimate.x0, mel), mel, iterations)
            return with_x0(estimate, self.domain.to_state(wave, mel), xt, level)

        return project

    def stream(
        self,
        source: MelSource | Iterable[Array],
        *,
        plan: InferenceSchedule | None = None,
        seed: SupportsIndex | None = 0,
        config: VocoderSamplingConfig | None = None,
        chunk_frames: int = CHUNK_FRAMES,
        first_chunk_frames: int | None = None,
        **overrides: Any,
    ) -> Iterator[Float[Tensor, " samples"]]:
        """Return an iterator over the waveform of a mel of any length, a chunk at a time.

        Chunks of a source see :data:`CONTEXT_FRAMES` beyond their ends and are cross-faded, so
        that no seam is audible; memory does not grow with the length.

        Chunks of a mel that is still arriving, ``(mels, frames)``, are synthesised as they come:
        the sound equals that of the whole mel, at the same cost, :meth:`look_ahead_frames` later.
        That needs a plan without projections, deterministic steps and a network on MDCT frames.

        Args:
            source: the mel, or its chunks of any length.
            plan: inference schedule, in place of the one that the options stand for.
            seed: random seed; None draws one from the system.
            config: options of synthesis; the model's own, ``sampling``, by default.
            chunk_frames: number of frames of a source that are synthesised at once.
            first_chunk_frames: number of frames of the first chunk, if it is to come sooner; each
                chunk after it has twice the frames of the previous one, up to ``chunk_frames``.
            **overrides: single options in place of the config's.

        Raises:
            InputError: if a mel cannot be synthesised while it arrives with these options.
        """
        config = (config or self.sampling).replace(**overrides)
        plan = self.plan(config) if plan is None else plan
        (seed,) = checked_seeds(seed, 1)  # that all chunks share, where it is drawn
        if hasattr(source, "num_frames"):
            sizes = min(first_chunk_frames or chunk_frames, chunk_frames), chunk_frames
            return self._chunked(cast(MelSource, source), plan, seed, config, sizes)
        return self._arriving(cast(Iterable[Array], source), plan, seed, config)

    def look_ahead_frames(self, num_steps: int | None = None) -> int:
        """Return how many mel frames sound lags behind a mel that is still arriving.

        Args:
            num_steps: number of evaluations; the model's own by default.

        Raises:
            InputError: if the model cannot synthesise such a mel.
        """
        domain, denoiser = self._framewise()
        steps = self.sampling.steps if num_steps is None else num_steps
        return look_ahead_frames(domain, denoiser, steps)

    def _framewise(self) -> tuple[SpectralDomain, MDCTDenoiser]:
        if isinstance(self.domain, SpectralDomain) and isinstance(self.denoiser, MDCTDenoiser):
            return self.domain, self.denoiser
        raise InputError("streams of chunks need a SpectralDomain and an MDCTDenoiser")

    def _arriving(
        self,
        chunks: Iterable[Array],
        plan: InferenceSchedule,
        seed: int,
        config: VocoderSamplingConfig,
    ) -> Iterator[Float[Tensor, " samples"]]:
        domain, denoiser = self._framewise()
        if any(plan.projections) or plan.final_projections:
            raise InputError(
                "streams of chunks: the mel projection needs the whole mel; give a plan without, "
                "such as steps=4, projections=0, final_projections=0"
            )
        if config.sampler != "ddim" or config.band_limit not in (AUTO, NONE):
            raise InputError("streams of chunks: need sampler ddim and no band limit in Hz")
        levels = [level.to(self.device) for level in self.process.levels(plan.times)]
        stream = VocoderStream(domain, self.process, denoiser, levels, seed)

        def sound() -> Iterator[Float[Tensor, " samples"]]:
            held: Tensor | None = None
            for chunk in chunks:
                if chunk.shape[-1] == 0:
                    continue
                if held is not None:
                    yield stream.push(held, last=False).cpu()
                held = mel_chunk(chunk, self.preset).to(self.device)
            if held is not None:
                yield stream.push(held, last=True).cpu()

        return sound()

    def _chunked(
        self,
        source: MelSource,
        plan: InferenceSchedule,
        seed: int,
        config: VocoderSamplingConfig,
        sizes: tuple[int, int],
    ) -> Iterator[Float[Tensor, " samples"]]:
        known = getattr(source, "band_hz", None)
        edge = band_limit_hz(config.band_limit, known, self.preset)
        hop = self.preset.hop_length
        hops = self.preset.num_samples(source.num_frames) // hop
        tail = torch.zeros(0)
        last, (size, most) = 0, sizes
        while last < hops:
            first, last, size = last, min(last + size, hops), min(2 * size, most)
            left, right = max(first - CONTEXT_FRAMES, 0), min(last + CONTEXT_FRAMES, hops)
            mel = source.frames(left, left + self.preset.num_frames((right - left) * hop))
            wave = self._synthesized(mel, [seed], plan, config.sampler, left)
            wave = band_limited(wave, self.preset.sample_rate_hz, edge)
            piece = wave[0, (first - left) * hop :].cpu()
            end = (last - first) * hop
            yield faded_in(tail, piece[:end])
            tail = piece[end : end + FADE_SAMPLES]

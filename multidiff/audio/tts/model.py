"""The acoustic model: phones to log mels, and with a vocoder to sound."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.audio.mel import MelPreset
from multidiff.audio.tts.mel_decoder import MelDecoder
from multidiff.audio.tts.phone_encoder import PhoneEncoder, frames_of
from multidiff.audio.tts.phones import Phone
from multidiff.audio.tts.sampling_config import SpeechSamplingConfig
from multidiff.audio.tts.speech import Speaker, SpokenSentence
from multidiff.audio.tts.task import AcousticTask, MelDomain
from multidiff.audio.vocoder.model import Vocoder
from multidiff.core.gaussian.predictions import combine
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.random import generators, unpadded
from multidiff.core.sample import sample
from multidiff.models.hub_model import HubModel
from multidiff.models.loading import load
from multidiff.models.requests import Seed, checked_seeds
from multidiff.models.sampling_config import sampler_named
from multidiff.nn.convnext import bottlenecks
from multidiff.utils.errors import InputError
from multidiff.utils.readers import read_json

FRONT_END = "front_end.json"


@dataclass(frozen=True)
class SpokenMel:
    """A sentence's log mel.

    Attributes:
        mel: log mel ``(mels, frames)`` of the model's preset.
        durations: frames of each phone.
    """

    mel: Float[Tensor, "mels frames"]
    durations: np.ndarray


class AcousticModel(HubModel, nn.Module):
    """Phones to log mels.

    Args:
        domain: mels as states.
        process: how the decoder was trained.
        denoiser: the decoder.
        text: phones to durations and mean frames.
        sampling: defaults of synthesis.
        languages: language of each speaker's texts, by name; ``en-us`` where not given.
        vocoder: name of the model that makes sound of its mels.
        duration_weight: factor of the duration loss.
        freezes_text: train the decoder alone, on text weights that were trained before.

    Raises:
        ValueError: if the parts do not fit each other.
    """

    pipeline_tag = "text-to-speech"

    def __init__(
        self,
        domain: MelDomain,
        process: GaussianProcess,
        denoiser: MelDecoder,
        text: PhoneEncoder,
        sampling: SpeechSamplingConfig | None = None,
        languages: dict[str, str] | None = None,
        vocoder: str = "speech",
        duration_weight: float = 0.3,
        freezes_text: bool = False,
    ):
        super().__init__()
        bands = {domain.preset.n_mels, denoiser.n_mels, text.n_mels}
        if len(bands) > 1:
            raise ValueError(
                f"n_mels: the mel has {domain.preset.n_mels}, the decoder {denoiser.n_mels} and "
                f"the text encoder {text.n_mels}; give all the same"
            )
        self.languages = {name: (languages or {}).get(name, "en-us") for name in text.speakers}
        strange = sorted((languages or {}).keys() - self.languages.keys())
        if strange:
            raise ValueError(f"languages: {strange[0]!r} is not one of the speakers")
        self.domain, self.process, self.denoiser, self.text = domain, process, denoiser, text
        self.sampling = SpeechSamplingConfig() if sampling is None else sampling
        self.vocoder = vocoder
        self.duration_weight, self.freezes_text = duration_weight, freezes_text
        self.read_by = ""

    @property
    def half_parts(self) -> tuple[str, ...]:
        """Beginnings of the names of weights that may have half precision."""
        return bottlenecks(self.denoiser, "denoiser")

    @property
    def _precision(self) -> torch.dtype | None:
        parts = self.half_parts
        halved = (own.dtype for name, own in self.named_parameters() if name.startswith(parts))
        return next(halved, None)

    @property
    def preset(self) -> MelPreset:
        """Preset of its mels."""
        return self.domain.preset

    @property
    def device(self) -> torch.device:
        """Device of its weights."""
        return self.domain.mean.device

    def task(self) -> AcousticTask:
        """Return what a trainer trains."""
        return AcousticTask(
            self.domain,
            self.process,
            self.denoiser,
            self.text,
            self.duration_weight,
            self.freezes_text,
        )

    def metadata(self) -> dict[str, str]:
        """Return what must agree between the weights and the recipe."""
        return {
            "mel": self.preset.name,
            "phonemes": " ".join(self.text.phonemes),
            "speakers": " ".join(self.text.speakers),
        }

    def assets(self) -> dict[str, str]:
        """Return which phonemiser read the transcripts, by name of the file."""
        return {FRONT_END: json.dumps({"front_end": self.read_by})} if self.read_by else {}

    def load_assets(self, folder: Path) -> None:
        """Take up which phonemiser read the transcripts, and in half precision the vocoder."""
        if (folder / FRONT_END).is_file():
            found = read_json(folder / FRONT_END)
            self.read_by = str(found.get("front_end", "")) if isinstance(found, dict) else ""
        if self._precision not in (None, torch.float32):
            self.loaded_vocoder()  # one that computes in float32 alone is refused here

    @torch.no_grad()
    def mels(
        self,
        phones: Sequence[str],
        speaker: str | None = None,
        *,
        seed: Seed = 0,
        config: SpeechSamplingConfig | None = None,
        durations: Sequence[np.ndarray] | None = None,
        recorded: Sequence[Float[Tensor, "mels frames"]] | None = None,
        strength: float = 1.0,
        **overrides: Any,
    ) -> list[SpokenMel]:
        """Return the log mel of each sentence.

        What a seed makes of a sentence does not depend on the others.

        Args:
            phones: a line of phones for each (:func:`~multidiff.audio.tts.phones.parse_phones`).
            speaker: name of the voice; the first where None.
            seed: random seed of the first sentence, which count up from it, or one for each.
            config: options of sampling; the model's own, ``sampling``, by default.
            durations: frames of each phone of each sentence; predicted where None.
            recorded: log mels of recordings with these durations: sampling starts from them,
                noised to the time ``strength`` (SDEdit, Meng et al. 2022), and keeps their
                intonation as far as that noise shows it.
            strength: the time that recordings are noised to, above 0; at 1 nothing of them is
                left.
            **overrides: single options in place of the config's, such as ``temperature=0.5``.

        Raises:
            InputError: if the model does not know a phone or the speaker, or an option is wrong.
            ValueError: if durations or recordings are not one for each sentence or do not fit each
                other, or the strength is out of range.
        """
        config = (config or self.sampling).replace(**overrides)
        if not phones:
            return []
        voice = self.text.speakers[0] if speaker is None else speaker
        batch = self.text.read(phones, [voice] * len(phones))
        seeds = checked_seeds(seed, len(phones))
        hidden = self.text.hidden(batch)
        if durations is None:
            logs = self.text.log_durations(hidden, batch)
            durations = [
                config.frames(row[:count].double().cpu().numpy())
                for row, count in zip(logs, batch.lengths, strict=True)
            ]
        elif [len(one) for one in durations] != batch.lengths:
            raise ValueError("durations: give each sentence one number of frames for each phone")
        condition, lengths = self._condition(hidden, durations)
        state = condition["mean"]
        if config.steps:
            rng = unpadded(generators(seeds), lengths)
            times = config.times(strength)
            start = config.temperature * self.process.prior(tuple(state.shape), rng)
            if recorded is not None:
                start = self._noised(recorded, lengths, start, self.process.levels(times)[0])
            state = sample(
                self.process,
                self.denoiser,
                sampler_named(config.sampler),
                tuple(state.shape),
                times,
                condition=condition,
                rng=rng,
                start=start.to(self.device),
                device=self.device,
            )
        mels = self.domain.decode(state).transpose(1, 2).cpu()
        return [
            SpokenMel(mel[:, :length], one)
            for mel, length, one in zip(mels, lengths, durations, strict=True)
        ]

    def speak(
        self,
        text: str,
        *,
        speaker: str | None = None,
        seed: SupportsIndex = 0,
        config: SpeechSamplingConfig | None = None,
        dictionary: Mapping[str, Sequence[Phone]] | None = None,
        **overrides: Any,
    ) -> Iterator[SpokenSentence]:
        """Return an iterator of a text's sentences as sound, each made when it is asked for.

        A sentence does not depend on those around it: its seed follows from its phones.

        Args:
            text: sentences and paragraphs.
            speaker: name of the voice; the first where None.
            seed: random seed of the whole.
            config: options of sampling; the model's own, ``sampling``, by default.
            dictionary: phones of words, by word in lower case
                (:func:`~multidiff.audio.tts.dictionary.read_dictionary`).
            **overrides: single options in place of the config's, such as ``speed=1.2``.

        Raises:
            InputError: if the text has no words, the speaker is not known, or an option is
                wrong.
        """
        own: Any = {"speaker": speaker, "seed": seed, "dictionary": dictionary}
        return Speaker(self, text, config, **own, **overrides).sentences()

    def stream(
        self, text: str, *, first_chunk_frames: int = 48, **options: Any
    ) -> Iterator[Float[Tensor, " samples"]]:
        """Return an iterator of a text's sound in chunks, each made when it is asked for.

        The first chunk of a sentence comes before the rest of it is synthesised. The samples, in
        [-1, 1] at the preset's rate, differ from those of :meth:`speak` where chunks meet.

        Args:
            text: sentences and paragraphs.
            first_chunk_frames: mel frames of a sentence's first chunk; each chunk after it has
                twice the frames of the previous one.
            **options: the same as those of :meth:`speak`, which raises the same errors.
        """
        return Speaker(self, text, **options).chunks(first_chunk_frames)

    def loaded_vocoder(self) -> Vocoder:
        """Return the vocoder, which is loaded once, in the precision of this model.

        Raises:
            InputError: if it reads other mels, or computes in float32 alone.
        """
        found = self.__dict__.get("_loaded")  # no part of this model's own weights
        if found is None:
            found = load(self.vocoder, self.device, dtype=self._precision)
            if getattr(found, "preset", None) != self.preset:
                raise InputError(
                    f"vocoder {self.vocoder}: does not read {self.preset.name} mels, which the "
                    "acoustic model makes; name another in the recipe"
                )
            self.__dict__["_loaded"] = found
        return found

    def _noised(
        self, recorded: Sequence[Tensor], lengths: Sequence[int], noise: Tensor, level: NoiseLevel
    ) -> Tensor:
        """Return recorded mels as states at a level, with this noise."""
        if [one.shape[1] for one in recorded] != [*lengths]:
            raise ValueError(
                "recorded: give each sentence a mel of as many frames as its durations"
            )
        x0 = torch.zeros(noise.shape)
        for row, mel in zip(x0, recorded, strict=True):
            row[: mel.shape[1]] = self.domain.standardized(mel.T.to(self.device)).cpu()
        at = level.to(noise.device)
        return combine(at.alpha, x0.to(noise), at.sigma, noise)

    def _condition(
        self, hidden: Tensor, durations: Sequence[np.ndarray]
    ) -> tuple[dict[str, Tensor], list[int]]:
        """Return what the decoder reads, padded to an even number of frames, and the lengths."""
        lengths = [int(one.sum()) for one in durations]
        size = max(lengths) + max(lengths) % 2
        phone = np.zeros((len(lengths), size), np.int64)
        features = np.zeros((len(lengths), size, 4), np.float32)
        mask = np.zeros((len(lengths), size), np.float32)
        for row, (length, one) in enumerate(zip(lengths, durations, strict=True)):
            found = frames_of(one)
            phone[row, :length], features[row, :length] = found.phone, found.features
            mask[row, :length] = 1
        index, near, real = (
            torch.from_numpy(one).to(self.device) for one in (phone, features, mask)
        )
        text, mean = self.text.frames(hidden, index, near, real)
        return {"mean": mean, "text": text, "mask": real}, lengths


class FitMelStatistics:
    """Sets the model's mean and deviation of each mel band to those of the training data."""

    def __call__(self, model: AcousticModel, batches: Any) -> Any:
        """Return the batches as they are.

        Raises:
            InputError: if the data give no statistics.
        """
        examples: Any = getattr(batches, "examples", None)
        if not hasattr(examples, "statistics"):
            raise InputError("FitMelStatistics: goes with data of Utterances")
        mean, std = examples.statistics()
        model.domain.mean.copy_(mean)
        model.domain.std.copy_(std)
        model.read_by = getattr(examples, "read_by", "")
        return batches

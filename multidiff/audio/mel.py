"""Mel spectrograms, by named presets.

Many vocoder failures come from a mel that was computed differently from the one the
network was trained on: another scale, norm, logarithm, power, padding. So a way to compute
mels is a named object, and a checkpoint stores the name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from multidiff.audio.mel_filters import mel_filters
from multidiff.core.tensor_cache import cached_tensors
from multidiff.utils.errors import InputError

DECIBELS_BELOW_ONE = 100.0  # lmnt's scale: -100 dB is 0, 0 dB is 1, after subtracting 20 dB


@dataclass(frozen=True)
class MelPreset:
    """Parameters of a mel spectrogram.

    Attributes:
        name: name in checkpoints and messages.
        sample_rate_hz: rate of the waveform.
        n_fft: size of the Fourier transform in samples.
        win_length: length of the Hann window in samples.
        hop_length: number of samples between frames.
        n_mels: number of bands.
        f_min_hz: lower edge of the lowest band.
        f_max_hz: upper edge of the highest band.
        mel_scale: "slaney" (librosa's) or "htk".
        norm: "slaney" divides each band by its width; None leaves peaks of 1.
        power: 1 for magnitudes, 2 for powers.
        window_normalized: whether the spectrum is divided by the window's L2 norm.
        log: "ln", "log10" or "decibels" (lmnt's 0 to 1 scale).
        floor: smallest value before the logarithm; 0 maps silence to a level of 0.
        centred: whether frame i is at sample ``i * hop``, with one frame more; otherwise
            it is at ``(i + 1/2) * hop``, HiFi-GAN's padding.
        drops_last: whether the additional frame of centred framing is dropped.
        under_root: constant added to the power before its root is taken; HiFi-GAN adds 1e-9,
            which matters if no norm makes bands small.

    Raises:
        ValueError: if the numbers do not describe a mel, or the name is that of another preset.
    """

    name: str
    sample_rate_hz: int
    n_fft: int
    win_length: int
    hop_length: int
    n_mels: int
    f_min_hz: float
    f_max_hz: float
    mel_scale: Literal["slaney", "htk"] = "slaney"
    norm: Literal["slaney"] | None = "slaney"
    power: Literal[1, 2] = 1
    window_normalized: bool = False
    log: Literal["ln", "log10", "decibels"] = "ln"
    floor: float = 1e-5
    centred: bool = False
    drops_last: bool = False
    under_root: float = 0.0

    def __post_init__(self) -> None:
        for key in ("f_min_hz", "f_max_hz", "floor", "under_root"):  # 0 and 0.0 print alike
            object.__setattr__(self, key, float(getattr(self, key)))
        counts = (self.sample_rate_hz, self.n_fft, self.win_length, self.hop_length, self.n_mels)
        if not self.name.strip() or min(counts) < 1:
            raise ValueError("a mel preset needs a name, and sizes and a rate of at least 1")
        if not self.hop_length <= self.win_length <= self.n_fft:
            raise ValueError(
                f"mel preset {self.name}: hop_length {self.hop_length}, win_length "
                f"{self.win_length} and n_fft {self.n_fft} must be in increasing order"
            )
        if not 0 <= self.f_min_hz < self.f_max_hz <= self.sample_rate_hz / 2:
            raise ValueError(
                f"mel preset {self.name}: bands from {self.f_min_hz:g} to {self.f_max_hz:g} Hz "
                f"must lie between 0 and half of the rate of {self.sample_rate_hz} Hz"
            )
        if not (self.floor >= 0 and self.under_root >= 0) or (self.log == "ln" and not self.floor):
            raise ValueError(
                f"mel preset {self.name}: floor {self.floor:g} and under_root "
                f"{self.under_root:g} must be at least 0, and the floor above 0 for log 'ln'"
            )
        known = globals().get("PRESETS", {}).get(self.name)
        if known is not None and known != self:
            raise ValueError(
                f"mel preset {self.name}: differs from the preset of this name in "
                f"{', '.join(known.differences(self.description()))}; give it another name"
            )

    def description(self) -> dict[str, Any]:
        """Return every field except the name, for checkpoints and files of mels."""
        return {key: value for key, value in asdict(self).items() if key != "name"}

    def differences(self, description: Mapping[str, Any]) -> list[str]:
        """Return the fields in which a description, of values or texts, differs.

        Fields that it does not have count as equal.
        """
        own = self.description()
        return [key for key in own if key in description and not _same(own[key], description[key])]

    # ------------------------------------------------------------------ spectrum

    @property
    def padding(self) -> int:
        """Number of samples mirrored at each end before framing."""
        return (self.n_fft if self.centred else self.n_fft - self.hop_length) // 2

    def num_frames(self, num_samples: int) -> int:
        """Return the number of frames for that many samples (a multiple of the hop)."""
        return num_samples // self.hop_length + self._extra_frames

    def num_samples(self, num_frames: int) -> int:
        """Return the number of samples that correspond to that many frames."""
        return (num_frames - self._extra_frames) * self.hop_length

    @property
    def _extra_frames(self) -> int:
        return int(self.centred and not self.drops_last)

    def spectrum(self, wave: Float[Tensor, "batch samples"]) -> Tensor:
        """Return the complex spectrum, ``(batch, n_fft // 2 + 1, frames)``, time first in memory.

        Raises:
            InputError: if the waveform is shorter than the padding needs.
        """
        if wave.shape[-1] <= self.padding:
            raise InputError(
                f"{wave.shape[-1]} samples are too short for a {self.name} mel: "
                f"at least {self.padding + 1} are needed"
            )
        return self._framed(mirrored(wave, self.padding, self.padding))

    def _framed(self, padded: Float[Tensor, "batch samples"]) -> Tensor:
        """Return the spectrum of samples that have their padding."""
        frames = padded.unfold(-1, self.n_fft, self.hop_length) * self._padded_window(padded)
        spectrum = torch.fft.rfft(frames).transpose(1, 2)
        return spectrum[..., :-1] if self.drops_last else spectrum

    def waveform(self, spectrum: Tensor, num_samples: int) -> Float[Tensor, "batch samples"]:
        """Return the waveform whose spectrum is nearest (least squares) to the given one."""
        frames = torch.fft.irfft(spectrum.transpose(1, 2), self.n_fft)
        overlapped = overlap_add(frames.mul_(self._padded_window(frames)), self.hop_length)
        power = _overlapping_power(self, frames.shape[1], frames.device, frames.dtype)
        wave = overlapped / power
        return wave[:, self.padding : self.padding + num_samples]

    def _padded_window(self, like: Tensor) -> Float[Tensor, " n_fft"]:
        return _padded_window(self, like.device, like.dtype)

    # ----------------------------------------------------------------------- mel

    def filters(self, like: Tensor) -> Float[Tensor, "bins mels"]:
        """Return the filter bank, on the device and in the dtype of ``like``."""
        return _filters(self, like.device, like.dtype)

    def bands(self, magnitude: Float[Tensor, "batch bins frames"]) -> Tensor:
        """Return linear band values ``(batch, mels, frames)`` of a magnitude spectrum."""
        if self.window_normalized:
            magnitude = magnitude / self.window_norm(magnitude)
        if self.power == 2:
            magnitude = magnitude.square()
        return self.filters(magnitude).T @ magnitude

    def compress(self, bands: Tensor) -> Tensor:
        """Convert band values to levels (logarithms)."""
        if self.log == "ln":
            return torch.log(bands.clamp(min=self.floor))
        if self.log == "log10":
            levels = torch.log10(bands.clamp(min=self.floor))
            return torch.where(torch.isinf(levels), 0.0, levels)
        decibels = 20 * torch.log10(bands.clamp(min=self.floor)) - 20
        return ((decibels + DECIBELS_BELOW_ONE) / DECIBELS_BELOW_ONE).clamp(0, 1)

    def expand(self, mel: Tensor) -> Tensor:
        """Convert levels to band values."""
        if self.log == "ln":
            return torch.exp(mel)
        if self.log == "log10":
            return torch.where(mel == 0, 0.0, 10.0**mel)
        return 10 ** ((mel * DECIBELS_BELOW_ONE - DECIBELS_BELOW_ONE + 20) / 20)

    def mean_magnitude(self, mel: Float[Tensor, "batch mels frames"]) -> Tensor:
        """Return the mean magnitude of the spectrum in each band, ``(batch, mels, frames)``."""
        bands = self.expand(mel) / self.filters(mel).sum(dim=0)[:, None]
        if self.power == 2:
            bands = bands.sqrt()
        if self.window_normalized:
            bands = bands * self.window_norm(mel)
        return bands

    def window_norm(self, like: Tensor) -> Tensor:
        """Return the window's L2 norm: the RMS magnitude of white noise of variance 1."""
        return window_like(self.win_length, like).square().sum().sqrt()

    def mel(self, wave: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch mels frames"]:
        """Compute the mel spectrogram of waveforms in [-1, 1].

        Raises:
            InputError: if the waveform is too short for one frame.
        """
        return self._levels(self.spectrum(wave))

    def mel_in_context(
        self, wave: Float[Tensor, "batch samples"]
    ) -> Float[Tensor, "batch mels frames"]:
        """Compute the mel of a segment of a recording, equal to the recording's own.

        Args:
            wave: the segment, a multiple of the hop, with :attr:`padding` samples of the recording
                on each side; beyond the recording's ends they are mirrored.
        """
        return self._levels(self._framed(wave))

    def _levels(self, spectrum: Tensor) -> Tensor:
        power = spectrum.real.square() + spectrum.imag.square() + self.under_root
        return self.compress(self.bands(power.sqrt()))

    # --------------------------------------------------------------------- levels

    @property
    def level_range(self) -> tuple[float, float]:
        """Return the least and the greatest level that audio in [-1, 1] can have."""
        return _level_range(self)

    def normalize(self, mel: Tensor) -> Tensor:
        """Normalise levels to about zero mean and unit variance, for networks."""
        low, high = self.level_range
        return (mel - (low + high) / 2) * (5 / (high - low))


def window_like(length: int, like: Tensor) -> Float[Tensor, " length"]:
    """Return the Hann window, on the device and in the dtype of ``like``."""
    return torch.hann_window(length, device=like.device, dtype=like.dtype)


def mirrored(
    wave: Float[Tensor, "batch samples"], left: int, right: int
) -> Float[Tensor, "batch padded"]:
    """Return waveforms with that many samples mirrored at each end."""
    return F.pad(wave[:, None], (left, right), mode="reflect")[:, 0]


def overlap_add(frames: Float[Tensor, "batch count length"], hop: int) -> Tensor:
    """Add overlapping frames to ``(batch, samples)``."""
    batch, count, length = frames.shape
    parts = -(-length // hop)
    if parts * hop > length:
        frames = F.pad(frames, (0, parts * hop - length))
    blocks = frames.unflatten(2, (parts, hop))
    found = frames.new_zeros(batch, count + parts - 1, hop)
    for part in range(parts):
        found[:, part : part + count] += blocks[:, :, part]
    return found.flatten(1)[:, : (count - 1) * hop + length]


@cached_tensors
def _padded_window(
    preset: MelPreset, device: torch.device, dtype: torch.dtype
) -> Float[Tensor, " n_fft"]:
    window = torch.hann_window(preset.win_length, device=device, dtype=dtype)
    left = (preset.n_fft - preset.win_length) // 2
    return F.pad(window, (left, preset.n_fft - preset.win_length - left))


@cached_tensors
def _overlapping_power(
    preset: MelPreset, count: int, device: torch.device, dtype: torch.dtype
) -> Float[Tensor, " samples"]:
    """Return the sum of the squared windows of that many frames, at least 1e-8."""
    squares = _padded_window(preset, device, dtype).square()
    return overlap_add(squares.expand(1, count, -1), preset.hop_length)[0].clamp(min=1e-8)


def _same(value: Any, other: Any) -> bool:
    """Compare a field's value to another, or to one that was written as text."""
    text = str(other).strip().lower()
    if value is None or isinstance(value, bool | str):
        return text == str(value).lower()
    try:
        return float(text) == value
    except ValueError:
        return False


# Exact also if the first to ask is a network under autocast: the result is kept.
@lru_cache(maxsize=16)
@torch.autocast("cpu", enabled=False)
def _level_range(preset: MelPreset) -> tuple[float, float]:
    window_sum = float(torch.hann_window(preset.win_length).sum())
    loudest = torch.full((1, preset.n_fft // 2 + 1, 1), window_sum)
    highest = float(preset.compress(preset.bands(loudest)).max())
    if preset.log == "decibels":
        return 0.0, 1.0
    if preset.floor == 0:
        return -16.0, highest
    logarithm = math.log if preset.log == "ln" else math.log10
    return logarithm(preset.floor), highest


@cached_tensors
def _filters(
    preset: MelPreset, device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "bins mels"]:
    bank = mel_filters(
        preset.sample_rate_hz,
        preset.n_fft,
        preset.n_mels,
        preset.f_min_hz,
        preset.f_max_hz,
        preset.mel_scale,
        preset.norm,
    )
    return torch.from_numpy(bank).T.contiguous().to(device, dtype)


# Read-only: a preset added in one process would make checkpoints that load nowhere else.
# Custom presets are written in the recipe (``mel: {use: MelPreset, ...}``), or passed as objects.
PRESETS: Mapping[str, MelPreset] = MappingProxyType({
    preset.name: preset
    for preset in (
        # HiFi-GAN, Tacotron 2, WaveGlow, Grad-TTS, Matcha-TTS, PriorGrad, SpeechBrain DiffWave.
        MelPreset("hifigan-22k", 22050, 1024, 1024, 256, 80, 0, 8000, under_root=1e-9),
        MelPreset("bigvgan-24k-100", 24000, 1024, 1024, 256, 100, 0, 12000, under_root=1e-9),
        MelPreset("bigvgan-v2-22k-80", 22050, 1024, 1024, 256, 80, 0, 11025, under_root=1e-9),
        MelPreset("bigvgan-v2-44k-128", 44100, 2048, 2048, 512, 128, 0, 22050, under_root=1e-9),
        MelPreset(
            "vocos-24k", 24000, 1024, 1024, 256, 100, 0, 12000,
            mel_scale="htk", norm=None, floor=1e-7, centred=True,
        ),
        # The paper names neither scale nor norm; librosa's defaults are assumed.
        MelPreset("wavegrad-paper-24k", 24000, 2048, 1200, 300, 128, 20, 12000, centred=True),
        MelPreset(
            "lmnt-wavegrad-22k", 22050, 2048, 1200, 300, 128, 20, 11025,
            mel_scale="htk", norm=None, window_normalized=True, log="decibels", centred=True,
        ),
        # The published weights were trained on librosa mels, not on the repository's own.
        MelPreset(
            "lmnt-wavegrad-24k-pretrained", 24000, 2048, 1200, 300, 128, 20, 12000,
            log="decibels", centred=True,
        ),
        MelPreset(
            "lmnt-diffwave", 22050, 1024, 1024, 256, 80, 20, 11025,
            mel_scale="htk", norm=None, window_normalized=True, log="decibels", centred=True,
        ),
        MelPreset(
            "ivanvovk-wavegrad", 22050, 1024, 1024, 300, 80, 80, 8000,
            mel_scale="htk", norm=None, power=2, log="log10", floor=0, centred=True,
            drops_last=True,
        ),
    )
})  # fmt: skip


def preset_named(name: str | MelPreset) -> MelPreset:
    """Return the preset of that name; a MelPreset object is returned unchanged.

    Raises:
        InputError: if the name is unknown; the message lists the known ones.
    """
    if isinstance(name, MelPreset):
        return name
    if name not in PRESETS:
        raise InputError(f"unknown mel preset {name!r}: expected one of {', '.join(PRESETS)}")
    return PRESETS[name]

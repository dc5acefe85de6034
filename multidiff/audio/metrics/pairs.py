"""Metrics that compare a synthesised recording with the original.

PESQ (ITU-T P.862.2, wide band) and STOI are the reference implementations from PyPI, on
16 kHz. PESQ is almost insensitive to phasiness and very sensitive to hiss, so it should not
be the only metric: the kurtosis of the LPC residual tells whether a voice's pulses are smeared,
the voicing error whether its pitch is intact.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import soxr
import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.audio.mel import MelPreset
from multidiff.audio.metrics.spectral import magnitude, spectral_distance
from multidiff.utils.packages import BROKEN, METRICS_EXTRA, needs, trouble

logger = logging.getLogger(__name__)

ITU_RATE_HZ = 16000
NUM_CEPSTRA = 13
# Range of a voice's fundamental frequency, deepest man to highest child.
VOICE_HZ = (65.0, 500.0)
VOICING_HOP = 256
LPC_ORDER = 24
HIGH_BAND_HZ = 4000

# name: (heading in tables, whether more is better)
METRICS = {
    "pesq": ("PESQ-wb", True),
    "stoi": ("STOI", True),
    "estoi": ("ESTOI", True),
    "log_mel_l1": ("log-mel L1", False),
    "multi_stft": ("M-STFT", False),
    "mcd": ("MCD dB", False),
    "voicing_f1": ("V/UV F1", True),
    "voicing_error": ("V/UV error", False),
    "high_band": ("high band", False),
    "residual_kurtosis": ("LPC kurtosis", True),
}


def compare(
    original: Float[Tensor, " samples"],
    made: Float[Tensor, " samples"],
    preset: MelPreset,
    flags: np.ndarray | None = None,
) -> dict[str, float]:
    """Return all metrics of one recording; both at the preset's rate, the longer one cut.

    A metric that is undefined for a recording (PESQ needs speech, STOI 0.3 s of it) is NaN.

    Args:
        original: the recording.
        made: the sound to score.
        preset: preset of the mel.
        flags: the recording's voiced frames by :func:`voiced`, if they are known.
    """
    hop = preset.hop_length
    length = min(len(original), len(made)) // hop * hop
    original, made = original[:length], made[:length]
    rate = preset.sample_rate_hz
    flags = voiced(original, rate) if flags is None else flags
    found = voiced(made, rate)[: len(flags)]
    low, high = (soxr.resample(x.numpy(), rate, ITU_RATE_HZ) for x in (original, made))
    return {
        "pesq": _or_nan(_pesq, low, high),
        "stoi": _or_nan(_stoi, low, high, False),
        "estoi": _or_nan(_stoi, low, high, True),
        "log_mel_l1": log_mel_l1(original, made, preset),
        "multi_stft": float(spectral_distance(made[None], original[None])),
        "mcd": mel_cepstral_distortion(original, made, preset),
        "voicing_f1": voicing_f1(flags[: len(found)], found),
        "voicing_error": float((flags[: len(found)] != found).mean()),
        "high_band": high_band_distance(original, made, rate),
        "residual_kurtosis": residual_kurtosis(made, rate, flags),
    }


def _or_nan(metric: Callable[..., float], *arguments: object) -> float:
    try:
        return float(metric(*arguments))
    except Exception:  # each library raises its own types where there is no speech to rate
        return math.nan


def _pesq(original: np.ndarray, made: np.ndarray) -> float:
    try:
        from pesq import pesq  # an extra: it is C source and needs a compiler
    except BROKEN as error:
        _warn_once(f"PESQ is skipped, since {trouble('pesq', 'it', error, METRICS_EXTRA)}")
        raise
    return pesq(ITU_RATE_HZ, original, made, "wb")


@lru_cache(maxsize=8)
def _warn_once(text: str) -> None:
    logger.warning(text)


def _stoi(original: np.ndarray, made: np.ndarray, extended: bool) -> float:
    try:
        from pystoi import stoi
    except BROKEN as error:
        _warn_once(f"STOI is skipped, since {trouble('pystoi', 'it', error)}")
        raise

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it warns, and returns 1e-5, where speech is too short
        return stoi(original, made, ITU_RATE_HZ, extended=extended)


def log_mel_l1(original: Tensor, made: Tensor, preset: MelPreset) -> float:
    """Return the mean difference of the mels' natural logarithms, in nats.

    A preset with another logarithm is measured on the HiFi-GAN mel of its rate.
    """
    if preset.log != "ln":
        preset = _natural(preset)
    return float((preset.mel(original[None]) - preset.mel(made[None])).abs().mean())


@lru_cache(maxsize=8)
def _natural(preset: MelPreset) -> MelPreset:
    return MelPreset(
        f"{preset.name}-ln",
        preset.sample_rate_hz,
        preset.n_fft,
        preset.win_length,
        preset.hop_length,
        preset.n_mels,
        preset.f_min_hz,
        preset.f_max_hz,
        centred=preset.centred,
    )


def mel_cepstral_distortion(original: Tensor, made: Tensor, preset: MelPreset) -> float:
    """Return the mel-cepstral distortion in dB, coefficients 1 to 13 (Kubichek 1993).

    Cepstra are cosine coefficients of the mel's natural logarithms; both recordings have the
    same timing, so frames are compared one by one, without warping.
    """
    preset = preset if preset.log == "ln" else _natural(preset)
    levels = preset.mel(torch.stack([original, made])).cpu().double()
    count = levels.shape[1]
    band = torch.arange(count, dtype=torch.float64) + 0.5
    order = torch.arange(1, NUM_CEPSTRA + 1, dtype=torch.float64)[:, None]
    basis = 2 / count * torch.cos(math.pi / count * order * band)
    difference = basis @ (levels[0] - levels[1])
    return float(10 * math.sqrt(2) / math.log(10) * difference.norm(dim=0).mean())


def voicing_f1(truth: np.ndarray, found: np.ndarray) -> float:
    """Return the F1 score of voiced frames; NaN if there are none."""
    both, total = float((truth & found).sum()), float(truth.sum() + found.sum())
    return 2 * both / total if total else math.nan


def high_band_distance(original: Tensor, made: Tensor, rate_hz: int) -> float:
    """Return the mean difference of log magnitudes above 4 kHz, in nats.

    Magnitudes of 1024 samples, hop 256, at least 1e-5 of full scale.
    """
    logs = [magnitude(wave[None], 1024, 256, 1024).log() for wave in (original, made)]
    first = math.ceil(HIGH_BAND_HZ / (rate_hz / 1024))
    return float((logs[0] - logs[1])[:, first:].abs().mean())


def residual_kurtosis(wave: Tensor, rate_hz: int, flags: np.ndarray) -> float:
    """Return the mean kurtosis of the residual of linear prediction in voiced frames.

    A voice's excitation is a train of pulses, so its residual has heavy tails: about 11 in
    recordings, 3 in noise; smeared pulses lie between. Each frame of 1024 samples is predicted
    by the autocorrelation method (Hann window) with 24 coefficients, and its inverse filter
    applied to the samples themselves. Frames quieter than -60 dB are left out.

    Args:
        wave: the sound.
        rate_hz: its rate.
        flags: which frames of :func:`voiced` are voiced in the recording.
    """
    from scipy.linalg import solve_toeplitz  # with librosa, an import of a tenth of a second

    samples, found = wave.double().numpy(), []
    for centre in np.flatnonzero(flags) * VOICING_HOP:
        frame = samples[max(centre - 512, 0) : centre + 512]
        if len(frame) < 1024 or np.mean(frame**2) < 1e-6:
            continue
        windowed = frame * np.hanning(1024)
        spectrum = np.abs(np.fft.rfft(windowed, 2048)) ** 2
        correlation = np.fft.irfft(spectrum)[: LPC_ORDER + 1]
        correlation[0] *= 1 + 1e-9
        predictor = solve_toeplitz(correlation[:-1], correlation[1:])
        residual = np.convolve(frame, np.concatenate([[1.0], -predictor]), "valid")
        residual -= residual.mean()
        found.append(np.mean(residual**4) / np.mean(residual**2) ** 2)
    return float(np.mean(found)) if found else math.nan


def voiced(wave: Tensor, rate_hz: int) -> np.ndarray:
    """Return which frames are voiced: 2048 samples around every 256th, by librosa's pYIN."""
    with needs("librosa", "eval of speech"):
        import librosa  # takes seconds to import

    _, flags, _ = librosa.pyin(
        wave.numpy(),
        fmin=VOICE_HZ[0],
        fmax=VOICE_HZ[1],
        sr=rate_hz,
        frame_length=2048,
        hop_length=VOICING_HOP,
    )
    return flags


def griffin_lim(
    mel: Float[Tensor, "mels frames"], preset: MelPreset, num_samples: int, iterations: int = 32
) -> Float[Tensor, " samples"]:
    """Return the baseline: librosa's mel inversion (non-negative least squares) and Griffin-Lim.

    librosa centres its frames; a preset that does not is shifted by its padding.
    """
    with needs("librosa", "eval of speech"):
        import librosa  # takes seconds to import

    bands = preset.expand(mel).numpy()
    magnitude = librosa.util.nnls(preset.filters(mel).T.numpy(), bands)
    if preset.power == 2:
        magnitude = np.sqrt(magnitude)
    if preset.window_normalized:
        magnitude = magnitude * float(preset.window_norm(mel))
    wave = librosa.griffinlim(
        magnitude,
        n_iter=iterations,
        hop_length=preset.hop_length,
        win_length=preset.win_length,
        n_fft=preset.n_fft,
        center=True,
        random_state=0,
    )
    # Frame i is at sample i * hop for librosa; without centring it is shifted by the padding.
    offset = 0 if preset.centred else preset.hop_length // 2
    wave = np.concatenate([np.zeros(offset, np.float32), wave])[:num_samples]
    return torch.from_numpy(np.pad(wave, (0, max(0, num_samples - len(wave)))))

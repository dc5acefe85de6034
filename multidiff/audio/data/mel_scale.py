"""Scales that mels are stored on, and the conversion of each to a preset's levels.

Other tools write the same mel as decimal logarithms, decibels, or scaled to [-1, 1]. If its scale
is stated by name and numbers, each is undone exactly::

    natural                      natural logarithms of band values
    log10, decibels              decimal logarithms of them; 20 times those
    linear                       band values without a logarithm
    range:LOW:HIGH:FROM:TO       natural logarithms FROM...TO mapped to LOW...HIGH
    standard:MEAN:STD            natural logarithms less their mean, over their std
    times:FACTOR:OFFSET          natural logarithms are FACTOR times the values, plus OFFSET
    preset                       levels as the preset makes them
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from multidiff.audio.data.mel_guard import MelStatistics
from multidiff.audio.mel import MelPreset
from multidiff.utils.errors import InputError

OPTION = "--mel-scale"
NATS_IN_DECADE, NATS_IN_DECIBEL = math.log(10), math.log(10) / 20
NUMBERS = {"range": "LOW:HIGH:FROM:TO", "standard": "MEAN:STD", "times": "FACTOR:OFFSET"}
PLAIN: dict[str, tuple[float, float]] = {
    "natural": (1.0, 0.0),
    "log10": (NATS_IN_DECADE, 0.0),
    "decibels": (NATS_IN_DECIBEL, 0.0),
}


@dataclass(frozen=True)
class MelScale:
    """Conversion of stored values to natural logarithms of band values.

    Attributes:
        name: name as stated.
        factor: factor on the values.
        offset: offset added afterwards.
        is_linear: whether they are band values, before any logarithm.
        is_preset: whether they are the preset's levels already.
    """

    name: str
    factor: float = 1.0
    offset: float = 0.0
    is_linear: bool = False
    is_preset: bool = False

    def to_preset(
        self, values: Float[Tensor, "batch mels frames"], preset: MelPreset
    ) -> Float[Tensor, "batch mels frames"]:
        """Return the preset's levels, not below its floor."""
        if self.is_preset:
            return values.clamp(min=preset.level_range[0]) if preset.log == "ln" else values
        if self.is_linear:
            return preset.compress(values)
        logarithms = values if self.is_identity else self.factor * values + self.offset
        if preset.log == "ln":
            return logarithms.clamp(min=math.log(preset.floor))
        return preset.compress(logarithms.exp())

    @property
    def is_identity(self) -> bool:
        """Return whether the values are natural logarithms already."""
        return (self.factor, self.offset) == (1.0, 0.0)


PRESET_SCALE = MelScale("preset", is_preset=True)


def mel_scale_named(text: str) -> MelScale:
    """Return the scale that a text states.

    Raises:
        InputError: if it is not one of those listed above, or its numbers are wrong.
    """
    kind, _, rest = text.strip().partition(":")
    if not rest and kind in PLAIN:
        return MelScale(text, *PLAIN[kind])
    if not rest and kind in ("linear", "preset"):
        return MelScale(text, is_linear=kind == "linear", is_preset=kind == "preset")
    if kind not in NUMBERS:
        known = [*PLAIN, "linear", "preset", *(f"{k}:{v}" for k, v in NUMBERS.items())]
        raise InputError(f"{OPTION} {text}: unknown scale; expected one of {', '.join(known)}")
    numbers = _numbers(text, rest, NUMBERS[kind])
    if kind == "standard":
        return MelScale(text, numbers[1], numbers[0])
    if kind == "times":
        return MelScale(text, numbers[0], numbers[1])
    low, high, first, last = numbers
    factor = (last - first) / (high - low) if high != low else 0.0
    if not factor > 0:
        raise InputError(f"{OPTION} {text}: LOW must be less than HIGH, and FROM less than TO")
    return MelScale(text, factor, first - factor * low)


def _numbers(text: str, rest: str, form: str) -> list[float]:
    try:
        numbers = [float(word) for word in rest.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) != form.count(":") + 1 or not all(map(math.isfinite, numbers)):
        kind = text.partition(":")[0]
        raise InputError(f"{OPTION} {text}: must have the form {kind}:{form}, each a number")
    if form != NUMBERS["range"] and numbers[form.startswith("MEAN")] <= 0:
        raise InputError(f"{OPTION} {text}: the values' factor must be greater than 0")
    return numbers


# --------------------------------------------------------------------------- recognition

Test = Callable[[MelStatistics, float], bool]


def advice_on(found: MelStatistics, preset: MelPreset) -> str:
    """Return what levels that are not the preset's look like, and the numbers that undo it."""
    factor = found.fluctuation if found.num_frames >= 1 else math.nan
    fitting = [
        f"{name}: {undo(found, factor, preset)}"
        for name, looks, undo in _LOOKS
        if looks(found, factor)
    ]
    if not fitting and found.num_frames >= 1 and found.skew < 0:
        fitting = [f"an affine map of its levels: {_undo_affine(found, factor, preset)}"]
    if not fitting:
        return f"state its scale with {OPTION} (natural, if it is right)"
    return f"it looks like {', or like '.join(fitting[:2])}"


def _undo_range(low: float, high: float) -> Callable[[MelStatistics, float, MelPreset], str]:
    def undo(found: MelStatistics, factor: float, preset: MelPreset) -> str:
        first = preset.level_range[0]
        last = first + (high - low) / factor if factor > 0 else preset.level_range[1]
        return (
            f"{OPTION} range:{low:g}:{high:g}:{first:.4f}:2 undoes it if {first:.4f} and 2 are "
            f"the limits in its tool's settings (about {last:.0f} by its fine structure)"
        )

    return undo


def _undo_affine(found: MelStatistics, factor: float, preset: MelPreset) -> str:
    scale = 1 / max(factor, 1e-3)
    offset = preset.level_range[0] - scale * found.least
    return (
        f"{OPTION} times:{scale:.2f}:{offset:.2f} nearly undoes it; use its tool's own numbers "
        "if you can"
    )


def _stated(scale: str, more: str = "") -> Callable[[MelStatistics, float, MelPreset], str]:
    return lambda found, factor, preset: f"{OPTION} {scale} undoes it{more}"


def _within(found: MelStatistics, low: float, high: float) -> bool:
    slack = 1e-3 * (high - low)
    return low - slack <= found.least and found.greatest <= high + slack


_LOOKS: tuple[tuple[str, Test, Callable[[MelStatistics, float, MelPreset], str]], ...] = (
    (
        "decibels (librosa's power_to_db or amplitude_to_db)",
        lambda f, k: f.span > 25 and not k < 3,
        _stated("decibels", "; restore what ref and top_db removed with times:0.1151:OFFSET"),
    ),
    (
        "values without a logarithm",
        lambda f, k: f.least >= 0 and f.std > 0.8 * f.mean,
        _stated("linear", " if they are magnitudes, not powers"),
    ),
    (
        "Whisper's features",
        lambda f, k: (
            abs(f.span - 2) < 2e-3
            and k < 0.4
            and f.least > -1.9
            and f.mean < 0.9
            and abs(f.least + 1) > 1e-3
        ),
        lambda f, k, p: (
            "they are of powers at 16 kHz and cannot be converted; make the mel with the "
            f"{p.name} preset"
        ),
    ),
    (
        "decimal logarithms",
        lambda f, k: 0.3 < k < 0.62 and -5.02 <= f.least < -2 and f.greatest < 1.5,
        _stated("log10", " (values are multiplied by 2.3026)"),
    ),
    (
        "a mel normalised by its mean and standard deviation",
        lambda f, k: abs(f.mean) < 0.5 and 0.6 < f.std < 1.4 and k < 0.7,
        _stated("standard:MEAN:STD", " (-5.54 and 2.12 for LJ Speech)"),
    ),
    (
        "a mel scaled to [0, 1]",
        lambda f, k: _within(f, 0, 1) and not k > 0.4,
        _undo_range(0, 1),
    ),
    (
        "a mel scaled to [-1, 1]",
        lambda f, k: _within(f, -1, 1) and not k > 0.6,
        _undo_range(-1, 1),
    ),
    (
        "a mel scaled to [-4, 4]",
        lambda f, k: _within(f, -4, 4) and 0.3 < k < 0.8,
        _undo_range(-4, 4),
    ),
    (
        "logarithms of powers instead of magnitudes",
        lambda f, k: 1.4 < k < 2.8,
        _stated("times:0.5:0", " roughly; make it from magnitudes"),
    ),
)

"""The shipped vocoder's real-time factor on a recording, compared with Griffin-Lim.

Both make sound from the recording's mel; reading it, loading the model and computing the mel are
not counted. Ratios are to Griffin-Lim, which is librosa's, with the mel inverted first.
"""

from __future__ import annotations

import multidiff
from benchmarks.timing import Row, counted, in_alternation, on_threads, rows_of
from multidiff.audio.metrics.evaluation import GRIFFIN_LIM_ITERATIONS, Clip, clips_of
from multidiff.audio.metrics.pairs import griffin_lim
from multidiff.audio.vocoder.model import Vocoder
from multidiff.models.loading import shipped

PART = "synth"
MODEL, RECORDING = "speech", "starter:speech/LJ001-0019.flac"
YARDSTICK = f"Griffin-Lim, {GRIFFIN_LIM_ITERATIONS} iterations"


def measure(threads: int, rounds: int) -> list[Row]:
    """Measure real-time factors on one thread, and on the number given."""
    if MODEL not in shipped():
        return [Row(PART, RECORDING, f"{MODEL} model", "RTF")]
    vocoder = multidiff.load(MODEL)
    (clip,) = clips_of(RECORDING, vocoder.preset)
    counts = sorted({1, threads})
    return [row for count in counts for row in _measure_on(count, vocoder, clip, rounds)]


def _measure_on(threads: int, vocoder: Vocoder, clip: Clip, rounds: int) -> list[Row]:
    preset, length = vocoder.preset, len(clip.wave)
    systems = {
        f"{MODEL}, {vocoder.plan().num_steps} evaluations": lambda: vocoder.synthesize(
            clip.mel[None]
        ),
        YARDSTICK: lambda: griffin_lim(clip.mel, preset, length, GRIFFIN_LIM_ITERATIONS),
    }
    with on_threads(threads):
        seconds = in_alternation(systems, rounds)
    sound = length / preset.sample_rate_hz
    case = f"{sound:.1f} s of speech, {counted(threads)}"
    return rows_of(PART, case, seconds, YARDSTICK, "RTF", lambda second: second / sound)

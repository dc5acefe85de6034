"""The shipped voice's real-time factor from text to sound, and of each part of the way.

The models, the phonemiser's data among them, are loaded. Ratios are to the whole way in float32.
``--clock process`` counts CPU seconds instead of those on the wall, for a busy machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

import multidiff
from benchmarks.timing import Row, counted, in_alternation, installed, on_threads, rows_of
from multidiff.audio.tts.front_end import FrontEnd
from multidiff.audio.tts.model import AcousticModel
from multidiff.audio.tts.phones import write_phones
from multidiff.audio.tts.speech import sound_of
from multidiff.models.loading import shipped

PART, MODEL = "speak", "kathleen"
PRECISIONS = "float32", "bfloat16"
CLOCKS = {"wall": time.perf_counter, "process": time.process_time}
TEXTS = Path(__file__).parent / "speech_sentences.txt"


def measure(threads: int, rounds: int, *, sentences: int = 4, clock: str = "wall") -> list[Row]:
    """Measure real-time factors on one thread, and on the number given.

    Args:
        threads: number of threads.
        rounds: number of measurements of each system.
        sentences: number of sentences of the list.
        clock: ``wall``, or ``process`` for CPU seconds.
    """
    if MODEL not in shipped() or not installed("gruut"):
        return [Row(PART, TEXTS.name, MODEL, "RTF")]
    text = " ".join(TEXTS.read_text("utf-8").splitlines()[:sentences])
    voices = {name: multidiff.load(MODEL, dtype=name) for name in PRECISIONS}
    counts = sorted({1, threads})
    return [row for count in counts for row in _measure_on(count, voices, text, rounds, clock)]


def _measure_on(
    threads: int, voices: dict[str, AcousticModel], text: str, rounds: int, clock: str
) -> list[Row]:
    reader = FrontEnd()
    lines = [write_phones(one.phones) for one in reader.sentences(text)]
    systems: dict[str, Callable[[], object]] = {}
    systems |= {f"whole way, {name}": _whole(voice, text) for name, voice in voices.items()}
    systems["phones"] = lambda: reader.sentences(text)
    for name, voice in voices.items():
        mels = [made.mel for line in lines for made in voice.mels([line])]
        vocoder = voice.loaded_vocoder()
        systems[f"mels, {name}"] = lambda voice=voice: [voice.mels([line]) for line in lines]
        systems[f"vocoder, {name}"] = lambda vocoder=vocoder, mels=mels: [
            sound_of(vocoder, mel, 0) for mel in mels
        ]
    with on_threads(threads):
        seconds = in_alternation(systems, rounds, CLOCKS[clock])
    voice = next(iter(voices.values()))
    sound = len(_whole(voice, text)()) / voice.preset.sample_rate_hz
    case = f"{len(lines)} sentences, {sound:.1f} s, {counted(threads)}"
    unit = "RTF" if clock == "wall" else "CPU s/s"
    return rows_of(PART, case, seconds, next(iter(systems)), unit, lambda second: second / sound)


def _whole(voice: AcousticModel, text: str) -> Callable[[], torch.Tensor]:
    return lambda: torch.cat([sentence.wave for sentence in voice.speak(text)])

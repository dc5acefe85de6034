"""Words that speech from text skips or repeats, by forced alignment with another program.

    pip install "multidiff[tts]" pocketsphinx
    python -m benchmarks.speech_alignment kathleen benchmarks/speech_sentences.txt

pocketsphinx aligns the words of each sentence with its sound, by its own pronunciations and its own
acoustic model. The voice knows where it meant each word to begin. A word that is missing, spoken
twice or slurred moves the boundaries behind it, or cannot be aligned at all; the sound of a good
sentence has every word where it was meant to be. Sentences with words that pocketsphinx cannot
pronounce are left out and counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch

from benchmarks.speech_judges import JUDGED_HZ, words_of
from multidiff.audio.tts.phones import parse_phones
from multidiff.audio.tts.speech import SpokenSentence
from multidiff.models.loading import load

FRAME_SECONDS = 0.01
SILENCE_SECONDS = 0.3
# Pronunciations differ by a phone or two at a boundary; the shortest word lasts about as long.
ALLOWED_SECONDS = 0.2


def meant_starts(sentence: SpokenSentence, hop_seconds: float) -> np.ndarray:
    """Return the second at which each word of a sentence was meant to begin."""
    ends = np.cumsum(sentence.durations)
    starts = np.concatenate([[0], ends[:-1]]) * hop_seconds
    begins = [phone.starts_word for phone in parse_phones(sentence.phones)]
    return starts[np.asarray(begins)]


class Aligner:
    """pocketsphinx, which aligns known words with a sound."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        self.decoder: Any = Decoder(samprate=JUDGED_HZ, loglevel="FATAL", bestpath=False)

    def unknown(self, words: list[str]) -> list[str]:
        """Return the words that it cannot pronounce."""
        return [word for word in words if self.decoder.lookup_word(word) is None]

    def starts(self, words: list[str], wave: np.ndarray, rate_hz: int) -> np.ndarray | None:
        """Return the second at which each word begins, or None if they do not fit the sound."""
        sound = soxr.resample(wave.astype(np.float32), rate_hz, JUDGED_HZ)
        sound *= 0.5 / max(float(np.abs(sound).max()), 1e-9)
        silence = np.zeros(int(SILENCE_SECONDS * JUDGED_HZ), np.float32)
        padded = np.concatenate([silence, sound, silence])
        self.decoder.set_align_text(" ".join(words))
        self.decoder.start_utt()
        self.decoder.process_raw((padded * 32767).astype("int16").tobytes(), full_utt=True)
        self.decoder.end_utt()
        if self.decoder.hyp() is None:
            return None
        found = [one.start_frame for one in self.decoder.seg() if not one.word.startswith("<")]
        if len(found) != len(words):
            return None
        return np.asarray(found) * FRAME_SECONDS - SILENCE_SECONDS


def sentences_of(model: Any, lines: list[str], seed: int) -> Iterator[SpokenSentence]:
    """Yield the spoken sentences of lines of text."""
    for line in lines:
        yield from model.speak(line, seed=seed)


def main() -> None:
    """Print sentences that do not fit, and a line of counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("texts", type=Path, help="a text a line")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model: Any = load(options.model)
    hop_seconds = model.preset.hop_length / model.preset.sample_rate_hz
    aligner, left_out, shifts, wrong = Aligner(), [], [], 0
    lines = [line for line in options.texts.read_text("utf-8").splitlines() if line.strip()]
    for sentence in sentences_of(model, lines, options.seed):
        words, meant = words_of(sentence.text), meant_starts(sentence, hop_seconds)
        unknown = aligner.unknown(words)
        if unknown or len(words) != len(meant):
            left_out.append(" ".join(unknown) or sentence.text)
            continue
        heard = aligner.starts(words, sentence.wave.numpy(), sentence.rate_hz)
        moved = np.full(len(words), np.inf) if heard is None else np.abs(heard - meant)
        shifts += [float(one) for one in moved if np.isfinite(one)]
        if moved.max() > ALLOWED_SECONDS:
            wrong += 1
            print(f"{moved.max():.2f} s at {words[int(moved.argmax())]!r}: {sentence.text}")
    print(
        f"{len(shifts)} words aligned, median {np.median(shifts):.3f} s from where meant, 99th "
        f"percentile {np.quantile(shifts, 0.99):.3f} s; {wrong} sentences have one more than "
        f"{ALLOWED_SECONDS} s away; left out: {'; '.join(left_out) or 'none'}"
    )


if __name__ == "__main__":
    main()

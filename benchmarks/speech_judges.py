"""Words wrong and DistillMOS of speech from text, beside real and vocoded recordings.

    pip install "multidiff[tts]"
    python -m benchmarks.speech_judges kathleen --data FOLDER --validation 60 --test 100 --seed 24 \
        --part test --settings 10:0.3 10:0.5

    python -m benchmarks.speech_judges kathleen --texts benchmarks/speech_sentences.txt

Two judges: the share of words that pocketsphinx (its own US English model) gets wrong, and
DistillMOS (Stahl and Gamper 2025), which estimates a mean opinion score from 1 to 5. Choose
settings on the validation part and report figures of the test part, which training never reads.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from multidiff.audio.mel import MelPreset
from multidiff.audio.tts.normalization import normalized
from multidiff.audio.tts.speech import sound_of
from multidiff.audio.tts.transcripts import TranscribedSource
from multidiff.audio.tts.utterance import levelled_sound
from multidiff.models.loading import load

JUDGED_HZ = 16000
# A recogniser wants to hear a little silence before the first word.
SILENCE_SECONDS = 0.3


@dataclass
class Tally:
    """Judgements of one system.

    Attributes:
        wrong: words inserted, deleted or replaced.
        words: words of the texts.
        scores: DistillMOS of each item.
        seconds: length of the sound.
        wall_seconds: time it took to make.
        pitches: semitones above 100 Hz of each item's voiced frames, where they are measured.
    """

    wrong: int = 0
    words: int = 0
    scores: list[float] = field(default_factory=list)
    seconds: float = 0.0
    wall_seconds: float = 0.0
    pitches: list[np.ndarray] = field(default_factory=list)

    def row(self) -> dict[str, float]:
        """Return the figures of a table's row."""
        pitch = {}
        if self.pitches:
            means = [float(one.mean()) for one in self.pitches]
            pitch = {
                "pitch": round(float(np.mean(means)), 2),
                "spread_within": round(float(np.mean([one.std() for one in self.pitches])), 2),
                "spread_of_means": round(float(np.std(means)), 2),
            }
        return {
            **pitch,
            "wer": round(100 * self.wrong / max(self.words, 1), 2),
            "mos": round(float(np.mean(self.scores)), 3),
            "words": self.words,
            "items": len(self.scores),
            "seconds": round(self.seconds, 1),
            "rtf": round(self.wall_seconds / max(self.seconds, 1e-9), 4),
        }


class Judges:
    """The two judges, loaded once.

    Args:
        prosody: also measure pitch.
    """

    def __init__(self, prosody: bool = False) -> None:
        self.prosody = prosody
        import distillmos
        from pocketsphinx import Decoder

        self.opinion = distillmos.ConvTransformerSQAModel().eval()
        self.recogniser = Decoder(samprate=JUDGED_HZ, loglevel="FATAL")

    def add(self, tally: Tally, text: str, wave: np.ndarray, rate_hz: int) -> tuple[str, float]:
        """Judge one sound; returns what was heard and its score."""
        sound = soxr.resample(wave.astype(np.float32), rate_hz, JUDGED_HZ)
        rms = np.sqrt(np.mean(sound**2)) + 1e-9
        sound = np.clip(sound * min(0.08 / rms, 0.97 / (np.abs(sound).max() + 1e-9)), -1, 1)
        with torch.no_grad():
            score = float(self.opinion(torch.from_numpy(sound)[None]))
        heard = self.hear(sound)
        wanted = words_of(text)
        tally.wrong += edit_distance(wanted, heard.split())
        tally.words += len(wanted)
        tally.scores.append(score)
        tally.seconds += len(wave) / rate_hz
        if self.prosody:
            tally.pitches.append(semitones(wave, rate_hz))
        return heard, score

    def hear(self, sound: np.ndarray) -> str:
        """Return the words that the recogniser hears."""
        silence = np.zeros(int(SILENCE_SECONDS * JUDGED_HZ), np.float32)
        padded = np.concatenate([silence, sound, silence])
        self.recogniser.start_utt()
        self.recogniser.process_raw((padded * 32767).astype("int16").tobytes(), full_utt=True)
        self.recogniser.end_utt()
        found = self.recogniser.hyp()
        return found.hypstr if found else ""


def semitones(wave: np.ndarray, rate_hz: int) -> np.ndarray:
    """Return the pitch of voiced frames in semitones above 100 Hz."""
    import librosa

    pitch, voiced, _ = librosa.pyin(
        wave, fmin=80, fmax=500, sr=rate_hz, frame_length=1024, hop_length=256, resolution=0.2
    )
    found = pitch[voiced & np.isfinite(pitch)]
    return 12 * np.log2(found / 100) if len(found) else np.zeros(1)


def words_of(text: str) -> list[str]:
    """Return a text's words as the recogniser would write them."""
    spoken = normalized(text, "en-us").lower().replace("-", " ")
    return re.findall(r"[a-z']+", spoken)


def edit_distance(wanted: Sequence[str], heard: Sequence[str]) -> int:
    """Return the least number of insertions, deletions and replacements."""
    row = list(range(len(heard) + 1))
    for i, one in enumerate(wanted, start=1):
        before, row[0] = row[0], i
        for j, other in enumerate(heard, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (one != other))
    return row[-1]


def recordings(
    source: TranscribedSource, part: str, preset: MelPreset
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each text and its recording, levelled and trimmed as for training."""
    for one in source.transcripts(part):  # type: ignore[arg-type]
        found = levelled_sound(one, preset)
        yield one.text, found.speech * found.gain


def main() -> None:
    """Print a table, and write it as JSON."""
    options = _options()
    torch.set_num_threads(options.threads)
    model, judges = load(options.model), Judges(options.prosody)
    vocoder, preset = model.loaded_vocoder(), model.preset
    rate = preset.sample_rate_hz
    tallies: dict[str, Tally] = {}
    items: list[tuple[str, torch.Tensor | None]] = (
        [(line, None) for line in options.texts.read_text("utf-8").splitlines() if line.strip()]
        if options.texts
        else list(
            recordings(
                TranscribedSource(
                    options.data,
                    validation=options.validation,
                    test=options.test,
                    seed=options.seed,
                ),
                options.part,
                preset,
            )
        )
    )
    for number, (text, wave) in enumerate(items[: options.limit]):
        if wave is not None and not options.no_references:
            judges.add(tallies.setdefault("real", Tally()), text, wave.numpy(), rate)
            began = time.perf_counter()
            again = sound_of(vocoder, preset.mel(wave[None])[0], number)
            tally = tallies.setdefault("vocoded", Tally())
            tally.wall_seconds += time.perf_counter() - began
            judges.add(tally, text, again.numpy(), rate)
        for setting in options.settings:
            steps, temperature, *rest = setting.split(":")
            speed = float(rest[0]) if rest else 1.0
            tally = tallies.setdefault(f"speech {setting}", Tally())
            began = time.perf_counter()
            spoken = model.speak(
                text, steps=int(steps), temperature=float(temperature), speed=speed,
                seed=options.noise_seed,
            )  # fmt: skip
            made = torch.cat([one.wave for one in spoken])
            tally.wall_seconds += time.perf_counter() - began
            heard, score = judges.add(tally, text, made.numpy(), rate)
            if options.keep:
                options.keep.mkdir(parents=True, exist_ok=True)
                soundfile.write(options.keep / f"{number:03}-{setting}.wav", made.numpy(), rate)
            if options.verbose:
                print(f"{number:3} {setting} {score:.2f} {text!r} -> {heard!r}", flush=True)
        if (number + 1) % 10 == 0:
            print(number + 1, {k: (t.row()["wer"], t.row()["mos"]) for k, t in tallies.items()},
                  flush=True)  # fmt: skip
    rows = {name: tally.row() for name, tally in tallies.items()}
    for name, row in rows.items():
        print(f"{name:24} {row}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", default="")
    parser.add_argument("--texts", type=Path, help="a text a line, instead of recordings")
    parser.add_argument("--part", default="validation")
    parser.add_argument("--validation", type=int, default=60)
    parser.add_argument("--test", type=int, default=100)
    parser.add_argument("--seed", type=int, default=24, help="of the split")
    parser.add_argument("--noise-seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--settings", nargs="*", default=["10:0.3"], help="STEPS:TEMPERATURE")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-references", action="store_true")
    parser.add_argument("--prosody", action="store_true", help="measure pitch too (slow)")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--keep", type=Path, help="folder for the sounds")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()

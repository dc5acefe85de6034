"""Records of `digits-joint`: images of MNIST and recordings of FSDD, paired at random by digit.

    python -m benchmarks.digit_records mnist.npz free-spoken-digit-dataset/recordings data/digits

MNIST is Keras' ``mnist.npz`` (``x_train``, ``y_train`` and, if there, ``x_test``, ``y_test``);
FSDD a folder of ``{digit}_{speaker}_{index}.wav`` or ``.flac``. OUT receives ``train.csv``,
``development.csv`` and ``test.csv`` with the columns ``image``, ``audio``, ``text``, ``digit`` and
``voice``, and copies of the media. No recording and no image is in two of the parts. Images that
`digit-tokens` held out in its training are not in ``train.csv``.

A pair agrees in its digit and in nothing else: the style of an image says nothing of the voice.
``--variants`` writes each training recording several times, the further ones somewhat faster or
slower, louder or fainter, and later: there are only forty recordings of a voice and digit.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from pathlib import Path

import numpy as np
import soundfile
import soxr
from PIL import Image

from multidiff.data.order import SplitRows

WORDS = {
    "en": ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    "de": ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"],
    "fr": ["zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf"],
    "es": ["cero", "uno", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve"],
}
# Wordings of a record's text and their probabilities.
WORDINGS = {"en": 0.2, "de": 0.1, "fr": 0.1, "es": 0.1, "handwritten": 0.25, "voice": 0.25}
HELD_OUT_EVERY = 12  # of digit-tokens
PARTS = ("train", "development", "test")
LONGEST_S = 1.0  # of a variant, with its silence


def caption(wording: str, digit: int, voice: int) -> str:
    """Return a text of a record."""
    word = WORDS["en"][digit]
    if wording == "handwritten":
        return f"a handwritten {word}"
    return f"voice-{voice} says {word}" if wording == "voice" else WORDS[wording][digit]


def digit_of(text: str) -> int | None:
    """Return the digit that a well-formed text names; None for any other text."""
    words = text.split()
    if len(words) == 3:
        framed = words[:2] == ["a", "handwritten"] or (
            words[0] in {f"voice-{n}" for n in range(1, 7)} and words[1] == "says"
        )
        return WORDS["en"].index(words[2]) if framed and words[2] in WORDS["en"] else None
    named = {one[digit]: digit for one in WORDS.values() for digit in range(10)}
    return named.get(text)


def images_of(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return images and digits of each part."""
    with np.load(path) as file:
        found = {name: file[name] for name in file.files}
    images, digits = found["x_train"], found["y_train"]
    rows = {side: np.array(SplitRows(len(images), HELD_OUT_EVERY, side)) for side in (False, True)}
    spared = rows[True]
    halves = {"train": rows[False], "development": spared[::2], "test": spared[1::2]}
    parts = {name: (images[own], digits[own]) for name, own in halves.items()}
    if "x_test" in found:
        parts["test"] = found["x_test"], found["y_test"]
    return parts


def recordings_of(
    folder: Path, test: range, development: range
) -> dict[str, list[tuple[Path, int, int, int]]]:
    """Return file, digit, voice and index of the recordings of each part."""
    files = sorted(one for one in folder.iterdir() if one.suffix in (".wav", ".flac"))
    names = [one.stem.split("_") for one in files]
    voices = {speaker: n for n, speaker in enumerate(sorted({one[1] for one in names}), 1)}
    parts: dict[str, list[tuple[Path, int, int, int]]] = {name: [] for name in PARTS}
    for file, (digit, speaker, index) in zip(files, names, strict=True):
        number = int(index)
        part = "test" if number in test else "development" if number in development else "train"
        parts[part].append((file, int(digit), voices[speaker], number))
    return parts


def variant(wave: np.ndarray, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """Return a recording at another speed and level, and with silence before it.

    Speeds are up to 7 % off, levels up to 6 dB, the silence takes at most 60 ms.
    """
    speed, gain = rng.uniform(0.93, 1.07), 10 ** (rng.uniform(-6, 6) / 20)
    varied = soxr.resample(wave, rate_hz * speed, rate_hz)
    varied *= min(gain, 0.99 / max(float(np.abs(varied).max()), 1e-4))
    room = max(0, int(LONGEST_S * rate_hz) - len(varied))
    return np.pad(varied, (rng.integers(1 + min(room, int(0.06 * rate_hz))), 0))


def write_recordings(
    out: Path, part: str, recordings, variants: int, rng: np.random.Generator
) -> dict[int, list[tuple[str, int]]]:
    """Write the recordings of one part, and return their names and voices by digit."""
    (out / "audio" / part).mkdir(parents=True)
    by_digit: dict[int, list[tuple[str, int]]] = {digit: [] for digit in range(10)}
    for file, digit, voice, number in recordings:
        name = f"audio/{part}/{digit}_voice-{voice}_{number}"
        shutil.copyfile(file, out / f"{name}{file.suffix}")
        by_digit[digit].append((f"{name}{file.suffix}", voice))
        wave, rate_hz = soundfile.read(file, dtype="float32")
        for n in range(1, variants):
            soundfile.write(out / f"{name}_{n}.flac", variant(wave, rate_hz, rng), rate_hz)
            by_digit[digit].append((f"{name}_{n}.flac", voice))
    return by_digit


def write_part(
    out: Path, part: str, images, recordings, pairs: int, variants: int, seed: int
) -> int:
    """Write the media and the list of one part, and return its number of records."""
    rng = np.random.default_rng(seed)
    pictures, digits = images
    (out / "images" / part).mkdir(parents=True)
    by_digit = write_recordings(out, part, recordings, variants, rng)
    names = []
    for number, picture in enumerate(pictures):
        names.append(f"images/{part}/{number:05}.png")
        Image.fromarray(picture).save(out / names[-1])
    kinds, odds = list(WORDINGS), list(WORDINGS.values())
    with open(out / f"{part}.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["image", "audio", "text", "digit", "voice"])
        for _ in range(pairs):
            for number in rng.permutation(len(pictures)):
                digit = int(digits[number])
                sound, voice = by_digit[digit][rng.integers(len(by_digit[digit]))]
                text = caption(kinds[rng.choice(len(kinds), p=odds)], digit, voice)
                rows.writerow([names[number], sound, text, digit, voice])
    return pairs * len(pictures)


def _indices(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main() -> None:
    """Write the records."""
    reader = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    reader.add_argument("mnist", type=Path)
    reader.add_argument("fsdd", type=Path)
    reader.add_argument("out", type=Path)
    reader.add_argument("--pairs", type=int, default=2, help="records of each training image")
    reader.add_argument("--variants", type=int, default=1, help="of each training recording")
    reader.add_argument("--test", type=_indices, default=range(5), help="indices of recordings")
    reader.add_argument("--development", type=_indices, default=range(5, 8))
    given = reader.parse_args()
    images, recordings = (
        images_of(given.mnist),
        recordings_of(given.fsdd, given.test, given.development),
    )
    for seed, part in enumerate(PARTS):
        if not recordings[part]:
            raise SystemExit(f"{given.fsdd}: no recordings for {part}; choose other indices")
        pairs, variants = (given.pairs, given.variants) if part == "train" else (1, 1)
        count = write_part(given.out, part, images[part], recordings[part], pairs, variants, seed)
        print(f"{given.out / part}.csv: {count} records, {len(recordings[part])} recordings")


if __name__ == "__main__":
    main()

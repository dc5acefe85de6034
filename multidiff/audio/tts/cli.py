"""Command-line verbs of acoustic models."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multidiff.audio.data.mel_files import write_mel
from multidiff.audio.data.sound import EXTENSIONS, WRITTEN, SoundFormat, write_sound
from multidiff.audio.tts.dictionary import read_dictionary
from multidiff.audio.tts.front_end import FrontEnd
from multidiff.audio.tts.model import AcousticModel
from multidiff.audio.tts.sampling_config import SpeechSamplingConfig
from multidiff.audio.tts.speech import SpokenSentence
from multidiff.utils.errors import InputError
from multidiff.utils.packages import PackageError
from multidiff.utils.report import Report

MEL_ENDINGS = (".npz", ".safetensors")


@dataclass
class Spoken:
    """A text that was spoken into a file.

    Attributes:
        output: the file.
        sentences: number of sentences, or pieces of long ones.
        seconds: length of the sound.
        wall_seconds: time it took, the models' loading not counted.
        first_seconds: time until the first sentence was there.
    """

    output: str
    sentences: int = 0
    seconds: float = 0.0
    wall_seconds: float = 0.0
    first_seconds: float = 0.0


def synth(
    model: AcousticModel,
    texts: Sequence[str],
    out: Path,
    *,
    seed: int,
    sampling: SpeechSamplingConfig,
    speaker: str | None = None,
    dictionary: Path | None = None,
    save_mel: Path | None = None,
    sound_format: SoundFormat,
) -> Report:
    """Speak texts into sound files.

    Args:
        model: the acoustic model.
        texts: one a file; all in turn where ``out`` is one file.
        out: sound file, or folder of numbered ones.
        seed: random seed of the noise.
        sampling: options of sampling.
        speaker: name of the voice; the model's first by default.
        dictionary: file of words and their IPA phones.
        save_mel: file of the mels too, or folder where ``out`` is one.
        sound_format: kind of the samples in sound files.

    Raises:
        InputError: if an option is wrong, or the only text is.
    """
    options: dict[str, Any] = {"speaker": speaker, "config": sampling}
    if dictionary is not None:
        options["dictionary"] = read_dictionary(dictionary, model.text.number_of)
    jobs = _jobs(texts, out, save_mel)
    sound_format.check(jobs[0][1])
    voice = model.text.speakers[0] if speaker is None else speaker
    model.text.speaker_number(voice)
    FrontEnd(model.languages[voice]).preload()
    model.loaded_vocoder()
    done: list[Spoken] = []
    faults: list[str] = []
    for text, output, mel in jobs:
        try:
            done.append(_spoken(model, text, output, mel, seed, sound_format, options))
        except PackageError:
            raise
        except InputError as fault:
            faults.append(str(fault))
    return Report([_line(one) for one in done], _facts(done), faults)


def _jobs(
    texts: Sequence[str], out: Path, save_mel: Path | None
) -> list[tuple[str, Path, Path | None]]:
    """Return each text with its sound file and its mel file."""
    is_file = out.suffix.lower() in WRITTEN
    if not is_file and out.suffix.lower() in EXTENSIONS:
        raise InputError(f"{out}: sound is written as {' or '.join(WRITTEN)}")
    if save_mel is not None and (save_mel.suffix in MEL_ENDINGS) != is_file:
        wanted = f"a file ({' or '.join(MEL_ENDINGS)})" if is_file else "a folder"
        raise InputError(f"--save-mel {save_mel}: name {wanted}, as -o {out} is one")
    if is_file:
        return [("\n".join(texts), out, save_mel)]
    digits = len(str(len(texts)))
    names = [f"text-{number:0{digits}}" for number in range(1, len(texts) + 1)]
    return [
        (text, out / f"{name}.wav", save_mel and save_mel / f"{name}.npz")
        for name, text in zip(names if len(texts) > 1 else ["text"], texts, strict=True)
    ]


def _spoken(
    model: AcousticModel,
    text: str,
    output: Path,
    mel: Path | None,
    seed: int,
    sound_format: SoundFormat,
    options: dict[str, Any],
) -> Spoken:
    done = Spoken(str(output))
    began = time.perf_counter()
    sentences = model.speak(text, seed=seed, **options)
    mels: list[Tensor] = []

    def waves(spoken: Iterator[SpokenSentence]) -> Iterator[Tensor]:
        for sentence in spoken:
            if done.sentences == 0:
                done.first_seconds = time.perf_counter() - began
            done.sentences += 1
            if mel is not None:
                mels.append(sentence.mel)
            yield sentence.wave

    rate = model.preset.sample_rate_hz
    done.seconds = write_sound(output, waves(sentences), rate, sound_format) / rate
    done.wall_seconds = time.perf_counter() - began
    if mel is not None:
        write_mel(mel, torch.cat(mels, dim=1), model.preset)
    return done


def _line(one: Spoken) -> str:
    threads = torch.get_num_threads()
    on = f"{threads} thread{'s' if threads > 1 else ''}"
    several = f"{one.sentences} sentence{'s' if one.sentences > 1 else ''}"
    return (
        f"{one.output}: {one.seconds:.2f} s of speech in {one.wall_seconds:.2f} s, real-time "
        f"factor {one.wall_seconds / one.seconds:.3f} on {on}; {several}, the first after "
        f"{one.first_seconds:.2f} s"
    )


def _facts(done: Sequence[Spoken]) -> dict[str, Any]:
    seconds, wall = sum(one.seconds for one in done), sum(one.wall_seconds for one in done)
    return {
        "outputs": [
            {
                "output": one.output,
                "sentences": one.sentences,
                "seconds": round(one.seconds, 4),
                "first_seconds": round(one.first_seconds, 4),
            }
            for one in done
        ],
        "seconds": round(seconds, 4),
        "wall_seconds": round(wall, 4),
        "real_time_factor": round(wall / seconds, 4) if seconds else None,
        "threads": torch.get_num_threads(),
    }

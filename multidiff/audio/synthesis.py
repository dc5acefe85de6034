"""Synthesis of files, from sound or mel to sound, as ``multidiff synth`` runs it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from multidiff.audio.data.mel_files import ENDINGS, read_mel
from multidiff.audio.data.sound import EXTENSIONS, SoundFile, SoundFormat, write_sound
from multidiff.audio.mel import MelPreset
from multidiff.audio.vocoder.inference_schedule import VocoderSamplingConfig
from multidiff.audio.vocoder.model import MelSource, Vocoder
from multidiff.utils.errors import InputError
from multidiff.utils.files import REASONS, resolve_path
from multidiff.utils.leftovers import visible_files

SILENT = 1e-7
# Endings of the files that can be synthesised.
INPUTS = EXTENSIONS + ENDINGS


class SoundMel:
    """The mel of a recording of any length, computed piece by piece on demand.

    The samples are kept in a temporary file, so memory does not grow with the recording.

    Args:
        sound: the recording.
        preset: preset of its mel.
        spool: an open temporary file.

    Attributes:
        band_hz: half of the recording's rate.

    Raises:
        InputError: if the recording cannot be read, is too short for a frame, or is silent.
    """

    def __init__(self, sound: SoundFile, preset: MelPreset, spool: tempfile._TemporaryFileWrapper):
        self.preset, self.name, self.channels = preset, sound.name, sound.channels
        self.num_samples, peak = 0, 0.0
        for block in sound.blocks(preset.sample_rate_hz):
            spool.write(block.astype(np.float32).tobytes())
            self.num_samples += len(block)
            peak = max(peak, float(np.abs(block).max()))
        if self.num_samples < preset.hop_length:
            raise InputError(
                f"{sound.name}: {self.num_samples} samples at {preset.sample_rate_hz} Hz are "
                f"shorter than one frame ({preset.hop_length}); give a longer recording"
            )
        if peak < SILENT:
            raise InputError(f"{sound.name}: is silent; nothing to synthesise")
        self.band_hz = sound.rate_hz / 2
        spool.flush()
        self._samples = Path(spool.name)
        self._hops = max(-(-self.num_samples // preset.hop_length), self._margin + 1)
        self.num_frames = preset.num_frames(self._hops * preset.hop_length)

    @property
    def _margin(self) -> int:
        """Number of hops on each side beyond which the mirrored edges have no effect."""
        return -(-self.preset.n_fft // self.preset.hop_length)

    def frames(self, first: int, last: int) -> Float[Tensor, "1 mels frames"]:
        """Return the frames from ``first`` up to ``last``, equal to those of the whole mel."""
        start, stop = max(first - self._margin, 0), min(last + self._margin, self._hops)
        hop = self.preset.hop_length
        count, size = (stop - start) * hop, np.dtype(np.float32).itemsize
        wave = torch.from_numpy(
            np.fromfile(self._samples, np.float32, count, offset=start * hop * size)
        )
        wave = F.pad(wave, (0, count - len(wave)))
        return self.preset.mel(wave[None])[..., first - start : last - start]


@dataclass(frozen=True)
class Synthesis:
    """Result for one input.

    Attributes:
        input: its name.
        output: the file written.
        seconds: length of the sound.
        wall_seconds: time of the synthesis, without loading the model.
        threads: number of CPU threads.
        channels: number of channels of the input.
    """

    input: str
    output: str
    seconds: float
    wall_seconds: float
    threads: int
    channels: int = 1

    @property
    def real_time_factor(self) -> float:
        """Seconds of computation for a second of sound."""
        return self.wall_seconds / self.seconds


def synthesize_file(
    vocoder: Vocoder,
    source: Path,
    output: Path,
    *,
    seed: int = 0,
    config: VocoderSamplingConfig | None = None,
    mel_scale: str | None = None,
    mel_preset: str | None = None,
    sound_format: SoundFormat | None = None,
) -> Synthesis:
    """Synthesise one recording or mel into a file, written atomically.

    The sound is as long as the recording, or as the mel.

    Args:
        vocoder: the model.
        source: a recording, or a mel file.
        output: the sound file.
        seed: random seed.
        config: options of synthesis; the model's own by default.
        mel_scale: scale of a mel file that states none.
        mel_preset: preset of a mel file that states none.
        sound_format: kind of the samples that are written.

    Raises:
        InputError: if the input cannot be used or the output cannot be written.
    """
    began = time.perf_counter()
    with opened(source, vocoder.preset, mel_scale, mel_preset) as (mel, num_samples):
        chunks = vocoder.stream(mel, seed=seed, config=config)
        rate = vocoder.preset.sample_rate_hz
        written = write_sound(output, trimmed(chunks, num_samples), rate, sound_format)
        channels = mel.channels if isinstance(mel, SoundMel) else 1
    wall = time.perf_counter() - began
    threads = torch.get_num_threads()
    return Synthesis(str(source), str(output), written / rate, wall, threads, channels)


@contextmanager
def opened(
    source: Path, preset: MelPreset, mel_scale: str | None = None, mel_preset: str | None = None
) -> Iterator[tuple[MelSource, int]]:
    """Yield a recording or a mel file as a mel, and the length of its sound in samples.

    Args:
        source: recording or mel file.
        preset: preset of the mel.
        mel_scale: scale of a mel file that states none.
        mel_preset: preset of a mel file that states none.

    Raises:
        InputError: if it cannot be used.
    """
    if source.suffix.lower() in ENDINGS:
        if not source.is_file():
            raise InputError(f"{source}: no such mel file")
        mel = read_mel(source, preset, mel_scale, mel_preset)
        yield mel, preset.num_samples(mel.num_frames)
        return
    if source.suffix.lower() not in EXTENSIONS:
        raise InputError(
            f"{source}: is neither sound ({', '.join(EXTENSIONS)}) nor a mel ({', '.join(ENDINGS)})"
        )
    with ExitStack() as spools:
        try:
            sound = SoundMel(SoundFile(source), preset, spools.enter_context(_spool()))
        except OSError as error:  # the folder for temporary files is full or missing
            raise InputError(
                f"{source}: needs space for its samples in the folder for temporary files "
                f"({REASONS.get(error.errno or 0, error.strerror)}); "
                "free space there, or set TMPDIR to another folder"
            ) from error
        yield sound, sound.num_samples


@contextmanager
def _spool() -> Iterator[tempfile._TemporaryFileWrapper]:
    """Yield a temporary file; on a full disk an error of closing it after writing is dropped."""
    spool = tempfile.NamedTemporaryFile(suffix=".samples")  # noqa: SIM115
    try:
        yield spool
    finally:
        with suppress(OSError):
            spool.close()


def trimmed(chunks: Iterator[Tensor], num_samples: int) -> Iterator[np.ndarray]:
    """Yield the chunks up to a number of samples."""
    left = num_samples
    for chunk in chunks:
        yield chunk[:left].numpy()
        left -= min(left, len(chunk))


def find_inputs(paths: list[Path]) -> list[Path]:
    """Return the files named, and those in the folders named; ``starter:NAME`` is packaged data.

    Raises:
        InputError: if a path does not exist, or a folder holds nothing to synthesise.
    """
    files: list[Path] = []
    for path in map(resolve_path, paths):
        if path.is_dir():
            inside = sorted(p for p in visible_files(path) if p.suffix.lower() in INPUTS)
            if not inside:
                raise InputError(f"{path}: holds neither sound nor mels")
            files += inside
        elif path.exists():
            files.append(path)
        else:
            raise InputError(f"{path}: no such file or folder")
    return files

"""Sounds and mels that clients send: their length is bounded while they are decoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory

import numpy as np

from multidiff.audio.data.mel_files import read_mel
from multidiff.audio.data.sound import SoundFile
from multidiff.audio.mel import MelPreset
from multidiff.audio.synthesis import SoundMel
from multidiff.audio.vocoder.model import MelSource
from multidiff.serve.settings import ServerSettings
from multidiff.serve.uploads import bytes_from
from multidiff.utils.errors import InputError

# First bytes of the files of a mel.
MELS = {b"\x93NUMPY": ".npy", b"PK\x03\x04": ".npz"}


class BoundedSound(SoundFile):
    """A sound of at most a number of seconds, also where its header declares no length.

    Args:
        content: bytes of the file.
        name: name in messages.
        seconds: the longest.

    Raises:
        InputError: if it is longer, or no sound.
    """

    def __init__(self, content: bytes, name: str, seconds: float):
        super().__init__(content, name)
        self.seconds = seconds

    def check(self) -> None:
        """Refuse the sound if it is longer, by reading it once."""
        for _ in self._raw_blocks(None):
            pass

    def _raw_blocks(self, whole: bool | None) -> Iterator[np.ndarray]:
        left = self.seconds * self.rate_hz
        for block in super()._raw_blocks(whole):
            left -= len(block)
            if left < 0:
                raise InputError(f"{self.name}: is longer than {self.seconds:g} s, the limit here")
            yield block


@contextmanager
def mel_from(
    name: str,
    text: str,
    preset: MelPreset,
    settings: ServerSettings,
    mel_scale: str | None = None,
    mel_preset: str | None = None,
) -> Iterator[tuple[MelSource, int]]:
    """Yield the mel of a request, a mel file or a recording, and its sound's length in samples.

    Raises:
        InputError: if it is neither, or too long, or a recording with a scale or preset of mels.
    """
    content = bytes_from(name, text)
    ending = next((end for start, end in MELS.items() if content.startswith(start)), None)
    if ending is None and content[8:10] == b'{"':
        ending = ".safetensors"
    if ending is None:
        stated = {"mel_scale": mel_scale, "mel_preset": mel_preset}
        unused = [one for one, value in stated.items() if value is not None]
        if unused:
            raise InputError(
                f"{', '.join(unused)}: {name} is a recording, whose mel is computed here; "
                f"leave {'it' if len(unused) == 1 else 'them'} out"
            )
        sound = BoundedSound(content, name, settings.max_seconds)
        with NamedTemporaryFile(suffix=".samples") as spool:
            mel = SoundMel(sound, preset, spool)
            yield mel, mel.num_samples
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}{ending}"
        path.write_bytes(content)
        array = read_mel(path, preset, mel_scale, mel_preset)
        num_samples = preset.num_samples(array.num_frames)
        if num_samples > settings.max_seconds * preset.sample_rate_hz:
            raise InputError(f"{name}: is longer than {settings.max_seconds:g} s, the limit here")
        yield array, num_samples

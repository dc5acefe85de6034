"""Train a vocoder on a folder of recordings and let it read a mel spectrogram.

    python examples/vocoder_from_folder.py my_recordings/ --steps 40000 --out runs/my_voice

Without a folder it trains on the four recordings of the package. The same as a recipe, with
checkpoints to resume from: `multidiff train recipes/audio/speech.yaml`.
"""

import argparse
from pathlib import Path

import torch

import multidiff as md
from multidiff.audio.data.segments import SpeechSegments
from multidiff.audio.data.sound import SoundFile, find_sounds, write_sound
from multidiff.audio.data.sources import AudioSource
from multidiff.audio.vocoder.domains import SpectralDomain
from multidiff.audio.vocoder.mdct_denoiser import MDCTDenoiser
from multidiff.audio.vocoder.model import Vocoder
from multidiff.utils.files import resolve_path


def main(arguments: list[str] | None = None) -> Path:
    """Train, write what the vocoder makes of the first recording's mel, return its path."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default="starter:speech")
    parser.add_argument("--steps", type=int, default=40000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("runs/my_voice"))
    options = parser.parse_args(arguments)

    mel, hop = "hifigan-22k", 128  # 22.05 kHz, 80 bands; the MDCT's hop in samples
    torch.manual_seed(0)
    vocoder = Vocoder(
        SpectralDomain(mel, hop),
        md.GaussianProcess(
            md.LogSNRSchedule(highest=9.0, lowest=-7.0),
            prediction="v",
            objective=md.SimpleLoss("l1"),
        ),
        MDCTDenoiser(mel, hop, width=options.width, depth=options.depth),
    )
    segments = SpeechSegments([AudioSource(options.folder)], mel, segment_frames=32)
    trainer = md.Trainer(steps=options.steps, learning_rate=1e-3, decay="linear", decay_from=0.75)
    print(trainer.fit(vocoder.task(), md.Batches(segments, batch_size=4), out=options.out).losses)

    recording = SoundFile(find_sounds(resolve_path(options.folder))[0])
    wave = recording.read(vocoder.preset.sample_rate_hz)
    spoken = vocoder.eval().synthesize(vocoder.preset.mel(wave[None]), seed=0)  # (1, samples)
    path = options.out / "spoken.wav"
    write_sound(path, iter([spoken[0].numpy()]), vocoder.preset.sample_rate_hz)
    print(path)
    return path


if __name__ == "__main__":
    main()

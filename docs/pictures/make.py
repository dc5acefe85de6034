"""Draws the pictures of the documentation: python docs/pictures/make.py [LOG.jsonl]."""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import multidiff as md
from multidiff.audio.metrics import griffin_lim
from multidiff.audio.sound import SoundFile
from multidiff.files import place_of
from multidiff.image.diffusion import Canvas
from multidiff.image.picture import grid, write_picture

HERE = Path(__file__).parent
CLIP, SECONDS = "starter:speech/LJ001-0019.flac", 3.2


def spectrogram(axis, wave, title):
    """Decibels over time and frequency of a waveform ``(samples,)`` at 22,050 Hz."""
    window = torch.hann_window(1024)
    power = torch.stft(wave, 1024, 128, window=window, return_complex=True).abs().square()
    decibels = 10 * (power + 1e-8).log10()
    extent = (0, len(wave) / 22050, 0, 11.025)
    axis.imshow(
        decibels, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=-60, vmax=25
    )
    axis.set_title(title, fontsize=9, loc="left")
    axis.set_ylabel("kHz", fontsize=8)
    axis.tick_params(labelsize=7)


def recording(vocoder):
    """The recording and its mel."""
    rate, hop = vocoder.preset.sample_rate_hz, vocoder.preset.hop_length
    wave = SoundFile(place_of(CLIP)).read(rate)[: int(SECONDS * rate) // hop * hop]
    return wave, vocoder.preset.mel(wave[None])


def speech(vocoder):
    """The recording, the model's reading of its mel, and Griffin-Lim's."""
    wave, mel = recording(vocoder)
    rows = [
        (wave, "recording"),
        (vocoder.synthesize(mel)[0], f"multidiff, {vocoder.plan().num_steps} evaluations"),
        (griffin_lim(mel[0], vocoder.preset, len(wave)), "Griffin-Lim, 32 iterations"),
    ]
    figure, axes = plt.subplots(3, 1, figsize=(9, 6.6), sharex=True)
    for axis, row in zip(axes, rows, strict=True):
        spectrogram(axis, *row)
    axes[-1].set_xlabel("seconds", fontsize=8)
    figure.tight_layout()
    figure.savefig(HERE / "speech.png", dpi=80)


def walk(vocoder):
    """The state as the noise goes away."""
    _, mel = recording(vocoder)
    mel = mel[..., : mel.shape[2] // 2]
    states = []
    vocoder.synthesize(mel, on_step=states.append)
    chosen = [states[number] for number in (0, 2, 4, len(states) - 1)]
    figure, axes = plt.subplots(2, 2, figsize=(9, 4.8), sharex=True, sharey=True)
    for axis, step in zip(axes.flat, chosen, strict=True):
        wave = vocoder.domain.to_wave(step.state, mel)[0]
        spectrogram(axis, wave, f"after step {step.number} of {step.total}")
    figure.tight_layout()
    figure.savefig(HERE / "walk.png", dpi=80)


DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def enlarged(pictures, times=2):
    """Pictures with larger pixels."""
    return pictures.repeat_interleave(times, 2).repeat_interleave(times, 3)


def digits(model):
    """A row of samples for each prompt."""
    prompts = [f"a handwritten {name}" for name in DIGITS for _ in range(12)]
    made = model.generate(prompts, seed=[*range(12)] * len(DIGITS))
    write_picture(grid(enlarged(made), columns=12, background=64), HERE / "digits.png")


def painting(model):
    """A digit, from which walks begin ever later, and whose upper half is painted anew."""
    first = model.generate(["a handwritten seven"], seed=2)
    rows = [first]
    for strength in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        rows.append(model.generate(["a handwritten three"], canvas=Canvas(first, strength)))
    mask = torch.zeros(28, 28, dtype=torch.bool)
    mask[:14] = True
    half = first.clone()
    half[:, :, mask] = 128
    rows.append(half)
    names = ("seven", "nine", "one", "two", "three", "eight", "four")
    prompts = [f"a handwritten {name}" for name in names]
    rows.append(model.generate(prompts, canvas=Canvas(first, 1.0, mask)))
    write_picture(
        grid(enlarged(torch.cat(rows), 3), columns=8, background=64), HERE / "painting.png"
    )


def unmasking(model):
    """The canvas of a digit after each step, a row for each; masks in grey."""
    canvases = []
    prompts, seeds = ["2", "5", "8"], [0, 0, 0]
    model.generate(prompts, seed=seeds, on_step=lambda _, tokens: canvases.append(tokens))
    rows = torch.stack(canvases, dim=1).flatten(0, 1)
    strip = grid(enlarged(model.domain.pictures(rows), 3), columns=len(canvases), background=64)
    write_picture(strip, HERE / "unmasking.png")


def training(log):
    """Losses over the steps of a run."""
    entries = [json.loads(line) for line in Path(log).read_text().splitlines()]
    figure, axis = plt.subplots(figsize=(7, 3))
    for group, colour in (("train", "lightgrey"), ("held-out", "black")):
        rows = [(e["step"], e["denoising"]) for e in entries if e["group"] == group]
        axis.plot(*zip(*rows, strict=True), color=colour, label=group, linewidth=1.2)
    axis.set(xlabel="step", ylabel="denoising loss")
    values = [e["denoising"] for e in entries if e["group"] == "held-out"]
    axis.set_ylim(min(values) - 0.01, max(values) + 0.06)
    axis.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(HERE / "training.png", dpi=80)


if __name__ == "__main__":
    torch.set_num_threads(2)
    model = md.load("speech")
    speech(model)
    walk(model)
    painter = md.load("digits")
    digits(painter)
    painting(painter)
    unmasking(md.load("digit-tokens"))
    if len(sys.argv) > 1:
        training(sys.argv[1])

"""Draw the images and make the sound of the documentation.

python docs/images/make.py [NAME ...] [LOG.jsonl]: those named (see ``PAGES`` at the end), or all
of them; with the log of a run also the image of its losses.
"""

import io
import json
import re
import shlex
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import soundfile
import torch
from PIL import Image

import multidiff as md
from multidiff.audio.data.sound import SoundFile
from multidiff.audio.metrics.pairs import griffin_lim
from multidiff.audio.synthesis import find_inputs, synthesize_file
from multidiff.cli.main import run
from multidiff.image.data.image_files import grid, write_image
from multidiff.image.diffusion.model import Canvas
from multidiff.image.interpolation import interpolate
from multidiff.text.data.vocabulary import PAD
from multidiff.text.domain import UNWRITTEN
from multidiff.text.request import TextRequest
from multidiff.utils.files import resolve_path

HERE = Path(__file__).parent
SOUNDS, GIVEN = HERE.parent / "sounds", HERE.parent / "given"
TEXT = (
    "Good morning. The train leaves at 7:45 and arrives at 9:10. "
    "Have you ever been to Norway in the winter?"
)
# All of seed 0, and none left out.
EMOJI = (
    "cat face", "dog face", "grinning face", "crying face", "pizza", "red apple", "frog", "tulip",
    "octopus", "hamburger",
)  # fmt: skip
ATTRIBUTES = (
    "blue cat face", "green octopus", "purple hamburger", "cat face on a red background",
    "frog on a blue background", "small pizza, top left", "small dog face, bottom right",
    "cat face and red apple", "blue frog on a yellow background", "small green tulip, top right",
)  # fmt: skip
CLIP, SECONDS = "starter:speech/LJ001-0019.flac", 3.2


def save(figure, name, dpi=80):
    """Save a figure as a small file of 128 colours."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=dpi)
    plt.close(figure)
    image = Image.open(drawn).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    image.save(HERE / name, optimize=True)


def spectrogram(axis, wave, title):
    """Draw the spectrogram in decibels of a waveform ``(samples,)`` at 22,050 Hz."""
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
    """Return the recording and its mel."""
    rate, hop = vocoder.preset.sample_rate_hz, vocoder.preset.hop_length
    wave = SoundFile(resolve_path(CLIP)).read(rate)[: int(SECONDS * rate) // hop * hop]
    return wave, vocoder.preset.mel(wave[None])


def speech(vocoder):
    """Draw the recording, the vocoder's output and Griffin-Lim's."""
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
    save(figure, "speech.png")


def sampling(vocoder):
    """Draw the state at several steps of sampling."""
    _, mel = recording(vocoder)
    mel = mel[..., : mel.shape[2] // 2]
    states = []
    vocoder.synthesize(mel, steps=4, on_step=states.append)
    chosen = [states[number] for number in range(4)]
    figure, axes = plt.subplots(2, 2, figsize=(9, 4.8), sharex=True, sharey=True)
    for axis, step in zip(axes.flat, chosen, strict=True):
        wave = vocoder.domain.to_wave(step.state, mel)[0]
        spectrogram(axis, wave, f"after step {step.number} of {step.total}")
    figure.tight_layout()
    save(figure, "sampling.png")


def sound(vocoder):
    """Synthesize the recordings of the package, and the first again in eight steps."""
    rate, pieces = vocoder.preset.sample_rate_hz, []
    sources = find_inputs([Path("starter:speech")])
    with tempfile.TemporaryDirectory() as folder:
        for source, steps in [*((one, 2) for one in sources), (sources[0], 8)]:
            made = Path(folder) / "made.wav"
            synthesize_file(vocoder, source, made, config=vocoder.sampling.replace(steps=steps))
            pieces += [soundfile.read(made)[0], np.zeros(rate // 2)]
    write_sound("spoken", np.concatenate(pieces[:-1]), rate)


def text(voice):
    """Speak a text."""
    spoken = list(voice.speak(TEXT, seed=0))
    write_sound("text", torch.cat([one.wave for one in spoken]).numpy(), spoken[0].rate_hz)


def write_sound(name, wave, rate):
    """Write a sound as FLAC and MP3."""
    SOUNDS.mkdir(exist_ok=True)
    soundfile.write(SOUNDS / f"{name}.flac", wave, rate, "PCM_16", compression_level=1.0)
    soundfile.write(
        SOUNDS / f"{name}.mp3", wave, rate, "MPEG_LAYER_III",
        compression_level=0.6, bitrate_mode="CONSTANT",
    )  # fmt: skip
    peak, power = 20 * np.log10(np.abs(wave).max()), 10 * np.log10(np.square(wave).mean())
    print(f"{len(wave) / rate:.2f} s, peak {peak:.1f} dBFS, RMS {power:.1f} dBFS")


DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def enlarged(images, times=2):
    """Return images with larger pixels."""
    return images.repeat_interleave(times, 2).repeat_interleave(times, 3)


def digits(model):
    """Draw a row of samples for each prompt."""
    prompts = [f"a handwritten {name}" for name in DIGITS for _ in range(12)]
    made = model.generate(prompts, seed=[*range(12)] * len(DIGITS))
    write_image(grid(enlarged(made), columns=12, background=64), HERE / "digits.png")


def painting(model):
    """Draw img2img of a digit by strength, and its upper half inpainted."""
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
    write_image(grid(enlarged(torch.cat(rows), 3), columns=8, background=64), HERE / "painting.png")


def write_small(image, name):
    """Write an image with 256 colours."""
    colours = Image.fromarray(image.permute(1, 2, 0).numpy())
    colours.quantize(256, dither=Image.Dither.NONE).save(HERE / name, optimize=True)


def emoji(model):
    """Draw a sheet of names in each style, and prompts of attributes."""
    styles = ("noto", "twemoji", "openmoji", "outline")
    prompts = [f"{name}, {style} style" for style in styles for name in EMOJI]
    made = model.generate(prompts, seed=[0] * len(prompts))
    write_small(grid(made, columns=len(EMOJI), background=255), "emoji.png")
    prompts = [f"{prompt}, {style} style" for style in styles[:2] for prompt in ATTRIBUTES]
    made = model.generate(prompts, seed=[0] * len(prompts))
    write_small(grid(made, columns=len(ATTRIBUTES), background=255), "attributes.png")


def restyled(model):
    """Draw a change of style by strength, an inpainted half, and the way between two prompts."""
    first = model.generate(["grinning face, twemoji style"], seed=0)
    rows = [first]
    for strength in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        canvas = Canvas(first, strength)
        rows.append(model.generate(["grinning face, outline style"], canvas=canvas))
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[32:] = True
    half = first.clone()
    half[:, :, mask] = 128
    rows += [half, model.generate(["cat face, twemoji style"] * 7, canvas=Canvas(first, 1.0, mask))]
    ends = [("cat face, twemoji style", 0), ("red apple, twemoji style", 0)]
    rows.append(interpolate(model, ends, 8))
    write_small(grid(torch.cat(rows), columns=8, background=255), "restyled.png")


def unmasking(model):
    """Draw the canvas of each digit after each step, masks in grey."""
    canvases = []
    prompts, seeds = ["2", "5", "8"], [0, 0, 0]
    model.generate(prompts, seed=seeds, on_step=lambda _, tokens: canvases.append(tokens))
    rows = torch.stack(canvases, dim=1).flatten(0, 1)
    strip = grid(enlarged(model.domain.images(rows), 3), columns=len(canvases), background=64)
    write_image(strip, HERE / "unmasking.png")


def tokens(model):
    """Draw a row of samples by masked tokens for each class."""
    prompts = [str(kind) for kind in range(10) for _ in range(12)]
    made = model.generate(prompts, seed=[*range(12)] * 10)
    write_image(grid(enlarged(made), columns=12, background=64), HERE / "tokens.png")


# Looks of texts in images, by the codes of a terminal.
COLUMNS, SIZE = 96, 10
PLAIN = {"color": "#24292f"}
COMMAND = {"color": "#24292f", "weight": "bold"}
REMOVED = {"color": "#c4232e", "strike": True, "back": "#ffebe9"}
WRITTEN = {"color": "#116329", "under": True, "back": "#dafbe1"}
CODES = {"0": PLAIN, "9;31": REMOVED, "4;32": WRITTEN}


def broken(line):
    """Return a line of ``(text, look)`` as rows of single characters, wrapped at words."""
    text = "".join(piece for piece, _ in line)
    cells = [(letter, look) for piece, look in line for letter in piece]
    indent = [(" ", PLAIN)] * len(re.match(r"(step +)?\d*:? ?", text)[0])
    rows = [[]]
    for word in re.finditer(r"\S+\s*|\s+", text):
        if len(rows[-1]) + len(word[0].rstrip()) > COLUMNS:
            rows.append([*indent])
        rows[-1] += cells[word.start() : word.end()]
    return rows


def typeset(lines, name):
    """Draw lines of ``(text, look)``, a character a cell."""
    rows = [row for line in lines for row in broken(line)]
    wide, high, edge = 0.602 * SIZE, 1.6 * SIZE, 10.0  # points
    width, height = COLUMNS * wide + 2 * edge, len(rows) * high + 2 * edge
    figure = plt.figure(figsize=(width / 72, height / 72), facecolor="white")
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axis.axis("off")
    for number, row in enumerate(rows):
        middle = edge + (number + 0.5) * high
        for place, (letter, look) in enumerate(row):
            left = edge + place * wide
            if "back" in look:
                box = plt.Rectangle((left, middle - 0.42 * high), wide, 0.84 * high)
                axis.add_patch(box)
                box.set(facecolor=look["back"], edgecolor="none", antialiased=False)
            for key, drop in (("strike", 0.0), ("under", 0.3 * high)):
                if look.get(key):
                    line = [middle + drop] * 2
                    axis.plot([left, left + wide], line, color=look["color"], linewidth=0.8)
            axis.text(
                left, middle, letter, color=look["color"], weight=look.get("weight", "normal"),
                family="DejaVu Sans Mono", size=SIZE, va="center_baseline", parse_math=False,
            )  # fmt: skip
    save(figure, name, dpi=110)


class Terminal(io.StringIO):
    """An output that makes commands print in colours."""

    def isatty(self):
        """Return True, as a terminal does."""
        return True


LONG = (
    "the the eagle grapes is wine a cheap indian receiving restaurant near d river t . "
    "it is family whole friendly by by has a rating of pairings 5 out 5 ."
)
MEANING = (
    "name[The Olive Grove], eatType[pub], food[Fast food], priceRange[less than £20], "
    "area[riverside], familyFriendly[no]"
)
DAMAGED = (
    "the olive grove is a fast-food pub in the alimentum unfortunately here sushi poor by a price "
    "range of less than 20 pounds, but is not friendly."
)
REVISIONS = [
    'multidiff sample edits --show-edits --source "the waterman is a cheap middle indian '
    'restaurant in the riverside grab area ."',
    'multidiff sample edits --show-edits --source "the the eagle is a a cheap pub near the river , '
    'with high customers rating ."',
    f'multidiff sample edits --show-edits --edits-per-step even --steps 4 --source "{LONG}"',
    "multidiff sample edits --show-edits --start noise --length 12 "
    '--prompt "name[The Eagle], food[Indian]"',
    f'multidiff sample edits --show-edits --num-candidates 64 --source "{DAMAGED}" '
    f'--prompt "{MEANING}"',
]


def edits():
    """Draw a terminal's output for some histories."""
    lines = []
    for command in REVISIONS:
        with redirect_stdout(Terminal()) as shown:
            assert run(shlex.split(command)[1:]) == 0
        lines += [[(f"$ {command}", COMMAND)], *map(looked, shown.getvalue().splitlines()), []]
    typeset(lines[:-1], "edits.png")


def looked(line):
    """Return a line of a terminal as parts with their looks."""
    first, *rest = re.split(r"\x1b\[([\d;]+)m", line)
    return [(first, PLAIN), *((text, CODES[code]) for code, text in zip(*[iter(rest)] * 2))]  # noqa: B905


def sentence(model):
    """Draw the most probable words of the noisy state of a text at several steps."""
    seen = []
    (text,) = model.generate([TextRequest()], seed=0, on_step=seen.append)
    length = len(model.domain.vocabulary.numbers(text))
    total, lines = len(seen), []
    for ratio in (0.02, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0):
        step = seen[round(ratio * total) - 1]
        logits = model.domain.logits(step.state)[0, :length]
        logits[:, list(UNWRITTEN)] = -torch.inf
        likely, words = logits.softmax(dim=-1).max(dim=-1)
        line = [(f"step {step.number:2d}: ", COMMAND)]
        for number, chance in zip(words.tolist(), likely.tolist(), strict=True):
            grey = f"#{round(208 - 176 * chance):02x}" + f"{round(212 - 176 * chance):02x}" * 2
            line.append((model.domain.vocabulary.text([number]) + " ", {"color": grey}))
        lines.append(line)
    typeset(lines, "sentence.png")


def masked(model):
    """Draw the canvas of a text after each step, masks as grey bars."""
    seen = []
    model.generate([TextRequest()], seed=0, steps=8, on_step=lambda *step: seen.append(step))
    final, lines = seen[-1][1][0].tolist(), []
    for number, canvas in seen:
        line = [(f"step {number}: ", COMMAND)]
        for token, word in zip(canvas[0].tolist(), final, strict=True):
            if word == PAD:
                continue
            hidden = token == model.process.size
            look = {"color": "#d0d7de", "back": "#d0d7de"} if hidden else PLAIN
            line += [(model.domain.vocabulary.text([word]), look), (" ", PLAIN)]
        lines.append(line)
    typeset(lines, "masked.png")


def training(log):
    """Draw the losses of a run."""
    entries = [json.loads(line) for line in Path(log).read_text().splitlines()]
    figure, axis = plt.subplots(figsize=(7, 3))
    for group, color in (("train", "lightgrey"), ("held-out", "black")):
        rows = [(e["step"], e["denoising"]) for e in entries if e["group"] == group]
        axis.plot(*zip(*rows, strict=True), color=color, label=group, linewidth=1.2)
    axis.set(xlabel="step", ylabel="denoising loss")
    values = [e["denoising"] for e in entries if e["group"] == "held-out"]
    axis.set_ylim(min(values) - 0.01, max(values) + 0.06)
    axis.legend(frameon=False)
    figure.tight_layout()
    save(figure, "training.png")


def several(model):
    """Draw the six directions between an image, a sound and a text, and write the sounds."""
    text, heard = "voice-3 says seven", GIVEN / "seven.flac"
    drawn = GIVEN / "seven.png"
    cases = [
        ({"text": text}, "image"), ({"text": text}, "audio"), ({"image": drawn}, "text"),
        ({"audio": heard}, "text"), ({"image": drawn}, "audio"), ({"audio": heard}, "image"),
    ]  # fmt: skip
    figure, axes = plt.subplots(2, 6, figsize=(9, 3.2))
    for column, (given, make) in enumerate(cases):
        (name,) = given
        found = model.generate(given, [make], seed=0)
        shown(axes[0, column], model, name, found[name][0])
        shown(axes[1, column], model, make, found[make][0])
        axes[0, column].set_title(f"{name} to {make}", fontsize=9)
        if make == "audio":
            stream = model.domain["audio"]
            stream.write(found["audio"][0], SOUNDS / f"{name}-to-audio.wav")
    figure.tight_layout()
    save(figure, "several.png", dpi=100)


def shown(axis, model, name, medium):
    """Draw a medium: an image, the mel of a sound, or a text."""
    axis.set(xticks=[], yticks=[])
    if name == "text":
        axis.text(0.5, 0.5, medium.replace(" ", "\n"), ha="center", va="center", fontsize=10)
    elif name == "image":
        axis.imshow(medium[0], cmap="gray")
    else:
        tokens = model.domain["audio"].autoencoder
        wave = torch.nn.functional.pad(medium, (0, tokens.num_samples - len(medium)))
        axis.imshow(tokens.unit(wave[None])[0], origin="lower", aspect="auto", cmap="magma")


# Images by name, and the model of each.
PAGES = {
    "speech": (speech, "speech"),
    "sampling": (sampling, "speech"),
    "sound": (sound, "speech"),
    "text": (text, "kathleen"),
    "digits": (digits, "digits"),
    "painting": (painting, "digits"),
    "emoji": (emoji, "emoji"),
    "restyled": (restyled, "emoji"),
    "unmasking": (unmasking, "digit-tokens"),
    "tokens": (tokens, "digit-tokens"),
    "sentence": (sentence, "restaurant"),
    "masked": (masked, "masked"),
    "edits": (edits, None),
    "several": (several, "digits-joint"),
}


if __name__ == "__main__":
    logs = [word for word in sys.argv[1:] if word.endswith(".jsonl")]
    names = [word for word in sys.argv[1:] if word not in logs]
    for name in names or (PAGES if not logs else ()):
        make, model = PAGES[name]
        make(*([md.load(model)] if model else []))
    for log in logs:
        training(log)

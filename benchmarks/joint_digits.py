"""`digits-joint`, judged by classifiers that were trained on real media alone.

    python -m benchmarks.joint_digits judge data/digits runs/sound_judge
    python -m benchmarks.joint_digits directions digits-joint data/digits runs/sound_judge \
        --part development --guidance-scale 1.5 2.5
    python -m benchmarks.joint_digits triples digits-joint data/digits runs/sound_judge --num 1000
    python -m benchmarks.joint_digits counts digits-joint --num 5000
    python -m benchmarks.joint_digits floors digits-joint data/digits

``data/digits`` is made by benchmarks/digit_records.py. Images are judged by the shipped
`digit-features`, sounds by a small network on mels that ``judge`` trains on the training
recordings, texts by their words. Choose options on the development part; report figures of the
test part, whose images and recordings neither the model nor the judge of sounds has read.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import multidiff as md
from benchmarks.digit_records import WORDINGS, caption, digit_of
from multidiff.data.batches import Batches, TensorExamples
from multidiff.image.data.image_files import read_image, to_unit
from multidiff.image.metrics.classifier import ImageClassifier
from multidiff.image.metrics.feature_distance import compare_sets
from multidiff.joint.model import JointModel
from multidiff.joint.records import Cell, Records, usable
from multidiff.joint.streams import SoundStream
from multidiff.training.trainer import Trainer

VOICES = 6
MEL_SIDE = 64
DIRECTIONS = (
    (("text",), "image"), (("text",), "audio"), (("image",), "text"), (("audio",), "text"),
    (("image", "audio"), "text"), (("image",), "audio"), (("audio",), "image"),
)  # fmt: skip


class SoundJudge(nn.Module):
    """Convolutions over the frames of a mel, and a linear layer each for digit and voice."""

    def __init__(self, mels: int = MEL_SIDE, width: int = 96):
        super().__init__()
        layers: list[nn.Module] = [nn.Dropout1d(0.1)]
        for before in (mels, width, width):
            layers += [nn.Conv1d(before, width, 5, 2, 2), nn.GroupNorm(8, width), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.4))
        self.digit = nn.Linear(width * MEL_SIDE // 8, 10)
        self.voice = nn.Linear(width * MEL_SIDE // 8, VOICES)

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of digits and of voices of mels in [-1, 1]."""
        hidden = self.layers(mel)
        return self.digit(hidden), self.voice(hidden)

    def features(self, mel: Tensor) -> Tensor:
        """Return the last convolution's channels, averaged over the frames."""
        hidden: Tensor = self.layers(mel)
        return hidden.unflatten(1, (-1, MEL_SIDE // 8)).mean(dim=2)

    def losses(self, batch: dict[str, Tensor], rng: Any) -> dict[str, Tensor]:
        """Return both cross-entropies; in training of later and fainter sounds, with noise."""
        mel = batch["mel"]
        if self.training:
            late, level, noise = torch.randint(0, 7, ()), torch.rand(len(mel), 1, 1), 0.03
            mel = torch.cat([torch.full_like(mel[..., :late], -1), mel], dim=2)[..., :MEL_SIDE]
            mel = (mel + 0.1 * (2 * level - 1) + noise * torch.randn_like(mel)).clamp(min=-1)
        digit, voice = self(mel)
        return {
            "digit": F.cross_entropy(digit, batch["label"] // VOICES, reduction="none"),
            "voice": F.cross_entropy(voice, batch["label"] % VOICES, reduction="none"),
        }


def rows_of(folder: Path, part: str) -> list[dict[str, str]]:
    """Return the rows of a part of the records."""
    import csv

    with open(folder / f"{part}.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def mels_of(stream: SoundStream, waves: Sequence[Tensor]) -> Tensor:
    """Return the mels of sounds, scaled to [-1, 1]."""
    most = stream.autoencoder.num_samples
    padded = torch.stack([F.pad(one[:most], (0, max(0, most - len(one)))) for one in waves])
    return torch.cat([stream.autoencoder.unit(some) for some in padded.split(256)])


def recordings(stream: SoundStream, folder: Path, part: str) -> tuple[list[Tensor], list[int]]:
    """Return the distinct recordings of a part and their classes, ``digit * 6 + voice - 1``."""
    found = {row["audio"]: int(row["digit"]) * VOICES + int(row["voice"]) - 1
             for row in rows_of(folder, part)}  # fmt: skip
    cells = [Cell(name, name, folder) for name in sorted(found)]
    waves = usable(cells, stream.read)
    pairs = [(w, found[c.name]) for w, c in zip(waves, cells, strict=True) if w is not None]
    return [one for one, _ in pairs], [label for _, label in pairs]


def train_judge(model: JointModel, folder: Path, out: Path, steps: int) -> None:
    """Train the judge of sounds on the training recordings."""
    stream: Any = model.domain["audio"]
    heard = {part: recordings(stream, folder, part) for part in ("train", "development", "test")}
    waves, labels = heard["train"]
    torch.manual_seed(0)
    judge = SoundJudge()
    examples = TensorExamples(mel=mels_of(stream, waves), label=torch.tensor(labels))
    trainer = Trainer(steps=steps, learning_rate=2e-3, warmup_steps=50, decay="cosine",
                      weight_decay=0.05, ema_decay=0.98, precision="fp32")  # fmt: skip
    trainer.fit(judge, Batches(examples, 64))
    judge.eval()
    out.mkdir(parents=True, exist_ok=True)
    save_file(judge.state_dict(), out / "judge.safetensors")
    for part, (waves, labels) in heard.items():
        found = sound_classes(judge, stream, waves)
        digit = [a // VOICES == b // VOICES for a, b in zip(found, labels, strict=True)]
        voice = [a % VOICES == b % VOICES for a, b in zip(found, labels, strict=True)]
        print(f"{part}: digit {_mean(digit)}, voice {_mean(voice)} of {len(labels)}")


@torch.no_grad()
def sound_classes(judge: SoundJudge, stream: SoundStream, waves: Sequence[Tensor]) -> list[int]:
    """Return digit and voice of sounds by the judge, ``digit * 6 + voice - 1``."""
    found = []
    for some in mels_of(stream, waves).split(256):
        digit, voice = (one.argmax(dim=1) for one in judge(some))
        found += (digit * VOICES + voice).tolist()
    return found


@torch.no_grad()
def image_digits(judge: ImageClassifier, images: Sequence[Tensor]) -> list[int]:
    """Return the digits of images by the judge."""
    parts = torch.stack([*images]).split(256)
    return torch.cat([judge(to_unit(one)).argmax(dim=1) for one in parts]).tolist()


class Judges:
    """Judges of all media.

    Args:
        model: model whose sounds are judged.
        sounds: folder of the judge of sounds.
    """

    def __init__(self, model: JointModel, sounds: Path):
        self.stream: Any = model.domain["audio"]
        self.image, self.audio = md.load("digit-features"), SoundJudge().eval()
        self.audio.load_state_dict(load_file(sounds / "judge.safetensors"))

    def digits(self, name: str, media: Sequence[Any]) -> list[int | None]:
        """Return the digits that media show; None for a text that is not well formed."""
        if name == "text":
            return [digit_of(one) for one in media]
        if name == "image":
            return [*image_digits(self.image, media)]
        return [one // VOICES for one in sound_classes(self.audio, self.stream, media)]

    def voices(self, media: Sequence[Tensor]) -> list[int]:
        """Return the voices of sounds, from 1."""
        return [one % VOICES + 1 for one in sound_classes(self.audio, self.stream, media)]


def directions(
    model: JointModel,
    folder: Path,
    judges: Judges,
    part: str,
    num: int,
    options: dict[str, Any],
    only: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the fraction of each direction that shows the digit asked for."""
    records = Records(str(folder / f"{part}.csv"))
    # A few recordings are longer than the model's sounds.
    sounds = usable([records.cell(n, "audio") for n in range(2 * num)], judges.stream.read)
    numbers = [n for n, one in enumerate(sounds) if one is not None][:num]
    rows = [row for n, row in enumerate(rows_of(folder, part)[: 2 * num]) if n in {*numbers}]
    want, voices = [int(row["digit"]) for row in rows], [int(row["voice"]) for row in rows]
    cells = {name: [records.cell(n, name) for n in numbers] for name in model.domain}
    found: dict[str, Any] = {}
    for given, make in DIRECTIONS:
        if only and f"{'+'.join(given)}-{make}" not in only:
            continue
        bridges = ("text", "none") if "text" not in (*given, make) else ("text",)
        for bridge in bridges:
            media = model.generate(
                {name: cells[name] for name in given}, [make], bridge=bridge, **options
            )[make]
            name = f"{'+'.join(given)} to {make}" + (" direct" if bridge == "none" else "")
            seen = judges.digits(make, media)
            found[name] = _mean([a == b for a, b in zip(seen, want, strict=True)])
            if make == "audio" and given == ("text",):
                named = [n for n, row in enumerate(rows) if row["text"].startswith("voice")]
                heard = judges.voices([media[n] for n in named])
                found["voice as asked"] = _mean([
                    heard[k] == voices[n] for k, n in enumerate(named)
                ])  # fmt: skip
            if make == "text":
                found[f"{name}, well formed"] = _mean([one is not None for one in seen])
            print(name, found[name], flush=True)
    return found


def triples(
    model: JointModel, folder: Path, judges: Judges, num: int, options: dict[str, Any]
) -> dict[str, Any]:
    """Return agreement, histograms, copies and DistillMOS of media made from nothing."""
    media = model.generate(num=num, **options)
    seen = {name: judges.digits(name, one) for name, one in media.items()}
    agree = [len(set(one)) == 1 and None not in one for one in zip(*seen.values(), strict=True)]
    counts = Counter(one for one in seen["text"] if one is not None)
    found: dict[str, Any] = {
        "agree": _mean(agree),
        "digits": {str(one): counts[one] for one in range(10)},
        "voices": dict(sorted(Counter(judges.voices(media["audio"])).items())),
    }
    images = {part: images_of(folder, part, judges.image) for part in ("train", "test")}
    heard = {part: recordings(judges.stream, folder, part) for part in images}
    sounds = {part: waves for part, (waves, _) in heard.items()}
    found |= copies(judges, images, sounds, media)
    labels = {
        "image": labels_of(folder, "train"),
        "audio": [one // VOICES for one in heard["train"][1]],
    }
    # A text that is not well formed names none; digits in turn stand for these.
    digits = [n % 10 if digit is None else digit for n, digit in enumerate(seen["text"])]
    found["variety"] = variety(judges, images, sounds, media, labels, digits)
    return found | {"mos": mos(judges, sounds["test"], media["audio"][:200])}


def counts(model: JointModel, num: int, options: dict[str, Any]) -> dict[str, Any]:
    """Return how often texts generated from nothing name each digit.

    Texts come first in the default order, so these are the texts of as many triples.
    """
    texts = model.generate(make=["text"], num=num, **options)["text"]
    named = Counter(digit_of(one) for one in texts)
    digits = {str(one): named[one] for one in range(10)}
    ratio = round(max(digits.values()) / max(min(digits.values()), 1), 3)
    return {"digits": digits, "most to least": ratio, "not well formed": named[None]}


def text_floors(rows: Sequence[dict[str, str]]) -> dict[str, float]:
    """Return the entropy of the texts of records, alone and given what an image or a sound shows.

    No bound of a model can be lower, in nats: a text depends on its wording, drawn at random, on
    the digit, which both other media show, and on the voice, which the sound tells.
    """
    shown = {"text": (), "text|image": ("digit",), "text|audio": ("digit", "voice")}
    found = {}
    for name, known in shown.items():
        groups: dict[tuple[str, ...], dict[str, float]] = {}
        for row in rows:
            group = groups.setdefault(tuple(row[one] for one in known), {})
            for wording, odds in WORDINGS.items():
                text = caption(wording, int(row["digit"]), int(row["voice"]))
                group[text] = group.get(text, 0.0) + odds / len(rows)
        nats = 0.0
        for group in groups.values():
            shares = torch.tensor([*group.values()], dtype=torch.float64)
            nats += float(torch.special.entr(shares / shares.sum()).sum() * shares.sum())
        found[name] = round(nats, 3)
    return found


def copies(
    judges: Judges,
    images: dict[str, Tensor],
    sounds: dict[str, list[Tensor]],
    media: dict[str, Any],
) -> dict[str, float]:
    """Return the median distance to the nearest training medium, beside that of held-out ones."""
    stream = judges.stream
    real = {part: mels_of(stream, some) for part, some in sounds.items()}
    made = mels_of(stream, media["audio"][:300])
    low, high = stream.autoencoder.preset.level_range
    decibel = 20 / torch.log(torch.tensor(10.0)).item() * (high - low) / 2
    found = {}
    for name, some in (("generated", made), ("held-out", real["test"])):
        distance = torch.cdist(some.flatten(1).float(), real["train"].flatten(1).float(), p=1).min(
            dim=1
        )[0]
        found[f"nearest training mel of {name}, dB"] = round(
            float(distance.median()) / MEL_SIDE**2 * decibel, 2
        )
    trained = images["train"]
    for name, some in (("generated", media["image"]), ("held-out", images["test"])):
        apart = torch.cdist(
            torch.stack([*some[:300]]).flatten(1).float(), trained.flatten(1).float()
        )
        rms = apart.min(dim=1)[0].median() / trained[0].numel() ** 0.5
        found[f"nearest training image of {name}, grey levels"] = round(float(rms), 1)
    return found


def images_of(folder: Path, part: str, judge: ImageClassifier) -> Tensor:
    """Return the distinct images of a part, as bytes."""
    names = sorted({row["image"] for row in rows_of(folder, part)})
    return torch.stack([read_image(folder / name, channels=judge.channels) for name in names])


def labels_of(folder: Path, part: str) -> list[int]:
    """Return the digits of :func:`images_of`."""
    digits = {row["image"]: int(row["digit"]) for row in rows_of(folder, part)}
    return [digits[name] for name in sorted(digits)]


def drawn(labels: Sequence[int], digits: Sequence[int]) -> list[int]:
    """Return the numbers of real media drawn at random, one of each digit asked for."""
    of: dict[int, list[int]] = {}
    for number in torch.randperm(len(labels)).tolist():
        of.setdefault(labels[number], []).append(number)
    return [of[digit].pop() for digit in digits]


@torch.no_grad()
def variety(
    judges: Judges,
    images: dict[str, Tensor],
    sounds: dict[str, list[Tensor]],
    media: dict[str, Any],
    labels: dict[str, Sequence[int]],
    digits: Sequence[int],
) -> dict[str, float]:
    """Return Frechet distances to held-out media on the judges' features.

    Beside those of images: as many training images and images of `digit-tokens`, of one medium.
    Beside those of sounds: as many training recordings, and the same recordings through the
    tokens and back. All are of the digits that the generated texts name: 500 media of digits
    drawn at random are farther from held-out ones than 50 of each digit, whatever made them.
    """
    stream = judges.stream
    held = judges.image.describe(images["test"])
    alone = md.load("digit-tokens").generate([*map(str, digits)], seed=0)
    real = images["train"][drawn(labels["image"], digits)]
    found = {}
    for name, some in (("generated", media["image"]), ("digit-tokens", alone), ("real", real)):
        described = judges.image.describe(torch.stack([*some]))
        found[f"images, {name}"] = compare_sets(held, described).frechet
    held = judges.audio.features(mels_of(stream, sounds["test"]))
    some = [sounds["train"][number] for number in drawn(labels["audio"], digits)]
    coded = stream.decode(stream.encode(some), range(len(some)))
    for name, waves in (("generated", media["audio"]), ("real", some), ("coded", coded)):
        described = judges.audio.features(mels_of(stream, waves))
        found[f"sounds, {name}"] = compare_sets(held, described).frechet
    return {name: round(value, 3) for name, value in found.items()}


def mos(judges: Judges, real: Sequence[Tensor], made: Sequence[Tensor]) -> dict[str, float]:
    """Return DistillMOS of generated and of real held-out sounds."""
    import distillmos
    import soxr

    judge = distillmos.ConvTransformerSQAModel().eval()
    found = {}
    for name, some in (("generated", made), ("real", real)):
        scores = []
        for wave in some:
            end = int((wave.abs() > 1e-4).nonzero().max()) + 1 if bool(wave.any()) else len(wave)
            up = torch.from_numpy(soxr.resample(wave[:end].numpy(), judges.stream.rate_hz, 16000))
            with torch.no_grad():
                scores.append(float(judge(up.float()[None])))
        found[name] = round(sum(scores) / len(scores), 3)
    return found


def _mean(values: Sequence[bool]) -> float:
    return round(sum(values) / max(len(values), 1), 4)


def main() -> None:
    """Run one part of the evaluation."""
    reader = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    reader.add_argument("what", choices=["judge", "directions", "triples", "counts", "floors"])
    reader.add_argument("model")
    reader.add_argument("data", type=Path, nargs="?")
    reader.add_argument("judge", type=Path, nargs="?", help="of judge, directions and triples")
    reader.add_argument("--part", default="test", choices=["development", "test"])
    reader.add_argument("--num", type=int, default=500)
    reader.add_argument("--guidance-scale", type=float, nargs="+", default=[None])
    reader.add_argument("--only", nargs="+", default=(), help="directions, such as audio-text")
    reader.add_argument("--media-guidance", help="of single media, such as image=1.5")
    reader.add_argument("--steps", type=int)
    reader.add_argument("--order")
    reader.add_argument("--short-order")
    reader.add_argument("--temperature", type=float)
    reader.add_argument("--noise", type=float)
    reader.add_argument("--sampler")
    reader.add_argument("--griffin-lim", action="store_true", help="leave out the vocoder")
    reader.add_argument("--bf16", action="store_true", help="sample in bfloat16")
    reader.add_argument("--judge-steps", type=int, default=1500)
    given = reader.parse_args()
    wanted = {"counts": (), "floors": (given.data,)}.get(given.what, (given.data, given.judge))
    if not all(wanted):
        reader.error(f"{given.what}: name DATA and JUDGE too, floors DATA alone")
    if given.what == "floors":
        print(json.dumps(text_floors(rows_of(given.data, given.part)), indent=1))
        return
    model = md.load(given.model)
    if given.griffin_lim:
        model.domain["audio"].vocoder = None
    if given.what == "judge":
        train_judge(model, given.data, given.judge, given.judge_steps)
        return
    if given.bf16:  # the transformer alone: mels and phases need float32
        model.denoiser.forward = torch.autocast("cpu", torch.bfloat16)(model.denoiser.forward)
    judges = None if given.what == "counts" else Judges(model, given.judge)
    names = ("media_guidance", "steps", "order", "short_order", "temperature", "noise", "sampler")
    for scale in given.guidance_scale:
        options = {name: getattr(given, name) for name in names} | {"guidance_scale": scale}
        if judges is None:
            found = counts(model, given.num, options)
        elif given.what == "triples":
            found = triples(model, given.data, judges, given.num, options)
        else:
            found = directions(
                model, given.data, judges, given.part, given.num, options, given.only
            )
        options = {name: one for name, one in options.items() if one is not None}
        print(json.dumps({"options": options, **found}, indent=1), flush=True)


if __name__ == "__main__":
    main()

"""Every reader on files that something happened to: it reads them or refuses in one line.

    python tests/trouble/fuzz.py --cases 1500 --seed 7 [--reader recipes] [--show]

A case is a traceback if anything but an InputError comes out, a hang beyond 20 s of the processor,
a bomb beyond 400 MB of memory more than before, and unclean if the message is not printable, does
not name the file, or half a file is left behind. The command ends with status 1 if there is any.
"""

import argparse
import base64
import contextlib
import faulthandler
import functools
import importlib
import io
import json
import logging
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import numpy as np
import safetensors.torch
import soundfile
import torch
from mutations import NAMES, as_json, in_bytes, in_values
from PIL import Image
from program import RECIPES

from multidiff.audio.data.mel_files import read_mel
from multidiff.audio.data.sound import SoundFile
from multidiff.audio.data.sources import AudioSource as Recordings
from multidiff.audio.mel import PRESETS
from multidiff.audio.vocoder.inference_schedule import read_plans
from multidiff.cli.main import run
from multidiff.config.recipe import parse
from multidiff.image.data.image_files import read_facts, read_image
from multidiff.image.data.listing import ImageSource as Images
from multidiff.image.stable_diffusion.contents import names_in, tensors_in, weights_in
from multidiff.image.tokenizers import ClipTokenizer
from multidiff.models.converters import convert_weights
from multidiff.models.loading import load, shipped
from multidiff.models.trial import try_recipe
from multidiff.models.weights import read_pickle, read_tensors
from multidiff.text.data.listing import TextSource
from multidiff.text.data.subwords import HuggingFaceVocabulary, SentencePieceVocabulary
from multidiff.text.data.vocabulary import WordVocabulary
from multidiff.training.checkpoints import Checkpoint, CheckpointFolder, read
from multidiff.utils.errors import InputError, printable

# Of the processor; a machine may be busy with other things.
LONGEST_SECONDS, LONGEST_WAIT_SECONDS, MOST_BYTES = 20, 120, 400 << 20
HIFIGAN = PRESETS["hifigan-22k"]
READERS = {}
PLACES = (
    *("", "starter:", "starter:..", "starter:../x", "starter:\x1b[31m", "../x", "a.zip", "a/b/c"),
    *("x" * 5000, "x/" * 3000, "\0", "a\0b", ".", "C:\\x", "~"),
)
ROWS = 'text,meaning,source\nA cat sat.,name[Cat],A cat\n"Two, dogs","name[Dog], food[Fish]",é\n'


def reader(function):
    """Register a reader: it changes files in an empty folder, and calls what reads them."""
    READERS[function.__name__] = function
    return function


@functools.cache
def stored(kind):
    """The bytes of a good file."""
    file = io.BytesIO()
    wave = np.sin(np.arange(2205) / 7).astype(np.float32) / 2
    levels = np.linspace(-11, 1.5, 80 * 30).reshape(80, 30).astype(np.float32)
    state = {"state_dict": {"a": torch.zeros(3), "b": torch.ones(2, 3)}, "step": 1}
    image = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    if kind in ("wav", "flac", "ogg", "mp3"):
        soundfile.write(file, wave, 22050, format=kind)
    elif kind == "npy":
        np.save(file, levels)
    elif kind in ("npz", "compressed"):
        {"npz": np.savez, "compressed": np.savez_compressed}[kind](file, mel=levels, note="x")
    elif kind in ("ckpt", "old"):
        torch.save(state, file, _use_new_zipfile_serialization=kind == "ckpt")
    elif kind in ("safetensors", "bfloat16"):
        mel = torch.from_numpy(levels).to(torch.bfloat16 if kind == "bfloat16" else torch.float32)
        return safetensors.torch.save({"mel": mel}, {"preset": "hifigan-22k"})
    elif kind in ("parquet", "images"):
        import pyarrow
        import pyarrow.parquet

        columns = {"text": ["A cat.", "A dog."], "label": [0, 1]}
        if kind == "images":
            columns["image"] = [{"bytes": stored("png"), "path": None}] * 2
        table = pyarrow.table(columns)
        pyarrow.parquet.write_table(table, file)
    else:
        image.save(file, format=kind)
    return file.getvalue()


def file_in(folder, rng, content, ending, name=None):
    """Write a file, now and then under a name that a terminal would obey."""
    stem = rng.choice(NAMES) if name is None and rng.random() < 0.2 else "a"
    path = folder / (name or f"{stem}.{ending}")
    path.write_bytes(content)
    return path


@reader
def sounds(rng, folder):
    kind = rng.choice(("wav", "flac", "ogg", "mp3"))
    path = file_in(folder, rng, in_bytes(rng, stored(kind)), kind)
    SoundFile(path).read(22050)


@reader
def mels(rng, folder):
    kind = rng.choice(("npy", "npz", "compressed", "safetensors", "bfloat16"))
    ending = {"compressed": "npz", "bfloat16": "safetensors"}.get(kind, kind)
    content = in_bytes(rng, stored(kind))
    if kind == "npz" and rng.random() < 0.3:  # a good zip file of strange members
        content = zipped({"mel.npy": in_bytes(rng, stored("npy")), "note": b"x", "": b""})
    read_mel(file_in(folder, rng, content, ending), HIFIGAN).frames(0, 9)


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name or "/", content)
    return file.getvalue()


@reader
def images(rng, folder):
    kind = rng.choice(("png", "jpeg", "webp", "bmp", "gif", "tiff", "ppm"))
    path = file_in(folder, rng, in_bytes(rng, stored(kind)), kind)
    read_image(path)
    read_facts(path)


@reader
def tables(rng, folder):
    rows = [{"text": f"Row {n}", "meaning": "name[Cat]", "source": "é"} for n in range(4)]
    ending = rng.choice(("csv", "tsv", "txt", "jsonl"))
    if ending == "jsonl" and rng.random() < 0.7:
        content = b"\n".join(as_json(in_values(rng, row)) for row in rows)
    else:
        text = ROWS if ending != "tsv" else ROWS.replace(",", "\t")
        content = in_bytes(rng, text.encode() if ending != "jsonl" else as_json(rows[0]))
    named = {} if ending == "txt" else {"meaning_column": "meaning", "source_column": "source"}
    path = file_in(folder, rng, content, ending)
    source = TextSource(str(path), held_out_every=rng.randint(0, 3), **named)
    source.rows(source.listing(), False)


@reader
def parquet(rng, folder):
    path = file_in(folder, rng, in_bytes(rng, stored("parquet")), "parquet")
    source = TextSource(str(path))
    source.rows(source.listing(), False)


@reader
def tables_of_pictures(rng, folder):
    path = file_in(folder, rng, in_bytes(rng, stored("images")), "parquet")
    found = Images(str(path), label_column="label", caption_column="text").listing()
    for content, name in zip(found.contents, found.names, strict=True):
        read_image(content, name)


@reader
def lists_of_pictures(rng, folder):
    rows = [{"file_name": "a.png", "text": "a cat", "label": "cat"}] * 2
    if rng.random() < 0.5:
        content = b"\n".join(as_json(in_values(rng, row)) for row in rows)
        path = file_in(folder, rng, content, "", "metadata.jsonl")
    else:
        content = b"file_name,text,label\na.png,a cat,cat\nb.png,a dog,dog\n"
        path = file_in(folder, rng, in_bytes(rng, content), "", "metadata.csv")
    Images(str(path.parent), label_column="label", caption_column="text").listing()


@reader
def lists_of_recordings(rng, folder):
    content = in_bytes(rng, b"a|A cat.\nb|A dog.\nc.wav|A bird.\n")
    path = file_in(folder, rng, content, "csv")
    (folder / "wavs").mkdir()
    for where in ("wavs/a.wav", "wavs/b.wav", "c.wav"):
        (folder / where).write_bytes(stored("wav"))
    Recordings(str(path)).recordings()


@functools.cache
def recipe_trees():
    return [
        parse(path.read_text(), str(path)).plain()
        for path in sorted((RECIPES / "smoke").glob("*.yaml"))
    ]


@reader
def recipes(rng, folder):
    if rng.random() < 0.4:
        path = rng.choice(sorted((RECIPES / "smoke").glob("*.yaml")))
        content = in_bytes(rng, path.read_bytes())
    else:  # JSON is YAML
        content = as_json(in_values(rng, rng.choice(recipe_trees())))
    try_recipe(file_in(folder, rng, content, "yaml"))


@reader
def weights(rng, folder):
    kind = rng.choice(("safetensors", "bfloat16", "ckpt", "old"))
    content = in_bytes(rng, stored(kind))
    if kind == "safetensors" and rng.random() < 0.4:
        length = int.from_bytes(stored(kind)[:8], "little")
        header = as_json(in_values(rng, json.loads(stored(kind)[8 : 8 + length])))
        content = len(header).to_bytes(8, "little") + header + stored(kind)[8 + length :]
    path = file_in(folder, rng, content, rng.choice(("safetensors", "ckpt", "pt")))
    for call in (read_tensors, read_pickle, names_in, tensors_in):
        with contextlib.suppress(InputError):
            call(path)
    convert_weights(path)


@reader
def indexes(rng, folder):
    (folder / "b.safetensors").write_bytes(stored("safetensors"))
    tree = {"metadata": {"total_size": 9}, "weight_map": {"mel": "b.safetensors"}}
    name = "model.safetensors.index.json"
    content = as_json(in_values(rng, tree)) if rng.random() < 0.7 else in_bytes(rng, as_json(tree))
    weights_in(file_in(folder, rng, content, "", name).parent)


@reader
def plans(rng, folder):
    content = (shipped()["speech"] / "plans.json").read_bytes()
    tree = json.loads(content)
    changed = as_json(in_values(rng, tree)) if rng.random() < 0.6 else in_bytes(rng, content)
    file_in(folder, rng, changed, "", "plans.json")
    read_plans(folder)


@functools.cache
def vocabularies():
    """Of each kind: how it is made, the name of its file and a good content."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    texts = [f"A cat number {n} sat on the mat, and {n} dogs barked." for n in range(40)]
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=60, special_tokens=["[UNK]"], show_progress=False)
    )
    with tempfile.TemporaryDirectory() as root:
        path = Path(root) / "a.txt"
        path.write_text("\n".join(texts))
        words = WordVocabulary(12, TextSource(str(path))).assets()
        pieces = SentencePieceVocabulary(36, TextSource(str(path))).assets()
    size = tokenizer.get_vocab_size() - 1 + 3
    return {
        "words": (lambda: WordVocabulary(12), *next(iter(words.items()))),
        "pieces": (lambda: SentencePieceVocabulary(36), *next(iter(pieces.items()))),
        "tokens": (lambda: HuggingFaceVocabulary(size), "tokenizer.json", tokenizer.to_str()),
    }


PRE_TOKENIZERS = (
    {"type": "FixedLength", "length": 0},
    {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False},
    {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False},
    {"type": "Sequence", "pretokenizers": []},
    {"type": "Metaspace", "replacement": "", "prepend_scheme": "always", "split": True},
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
)


@reader
def tokenizers(rng, folder):
    make, name, content = vocabularies()[rng.choice(("words", "pieces", "tokens"))]
    if name.endswith(".json") and rng.random() < 0.7:
        tree = json.loads(content)
        if name == "tokenizer.json" and rng.random() < 0.5:
            tree["pre_tokenizer"] = rng.choice(PRE_TOKENIZERS)
        changed = as_json(in_values(rng, tree))
    elif name == "sentencepiece.txt" and rng.random() < 0.6:
        changed = base64.b64encode(in_bytes(rng, base64.b64decode(content)))
    else:
        changed = in_bytes(rng, content.encode())
    file_in(folder, rng, changed, "", name)
    vocabulary = make()
    vocabulary.load_assets(folder)
    vocabulary.text(vocabulary.numbers("A cat. 漢字"))


@reader
def clip_tokenizers(rng, folder):
    letters = [chr(code) for code in range(33, 127)]
    tokens = [
        *letters,
        *(f"{one}</w>" for one in letters),
        "ca",
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    tree = {token: number for number, token in enumerate(tokens)}
    files = {"vocab.json": as_json(tree), "merges.txt": b"#version: 0.2\nc a\n"}
    name = rng.choice(sorted(files))
    is_tree = name == "vocab.json" and rng.random() < 0.5
    files[name] = as_json(in_values(rng, tree)) if is_tree else in_bytes(rng, files[name])
    for other, content in files.items():
        (folder / other).write_bytes(content)
    ClipTokenizer(str(folder))(["a cat"])


@functools.cache
def checkpoint_files():
    with tempfile.TemporaryDirectory() as root:
        runs = CheckpointFolder(Path(root))
        tensors = {part: {"a": torch.ones(3)} for part in ("model", "ema", "optimizer")}
        path = runs.save(Checkpoint(1, tensors, {"ema_updates": 1}, {"recipe.yaml": "a: 1\n"}))
        return {file.name: file.read_bytes() for file in path.iterdir()}


@reader
def checkpoints(rng, folder):
    files = dict(checkpoint_files())
    name = rng.choice(sorted(files))
    if name == "state.json" and rng.random() < 0.6:
        files[name] = as_json(in_values(rng, json.loads(files[name])))
    else:
        files[name] = in_bytes(rng, files[name])
    for other, content in files.items():
        (folder / other).write_bytes(content)
    read(folder)


@reader
def model_folders(rng, folder):
    good = shipped()["restaurant-control"]
    for path in good.iterdir():
        shutil.copy(path, folder / path.name)
    name = rng.choice(("vocabulary.json", "recipe.yaml", "model.safetensors"))
    content = (good / name).read_bytes()
    if name == "recipe.yaml" and rng.random() < 0.6:
        changed = as_json(in_values(rng, parse(content.decode(), name).plain()))
    elif name == "vocabulary.json" and rng.random() < 0.5:
        changed = as_json(in_values(rng, json.loads(content)))
    else:
        changed = in_bytes(rng, content[:4000]) + content[4000:]
    (folder / name).write_bytes(changed)
    load(folder)


@reader
def foreign_folders(rng, folder):
    configurations = {
        "model_index.json": {"_class_name": "StableDiffusionPipeline",
                             "unet": ["diffusers", "UNet2DConditionModel"]},
        "unet/config.json": {"block_out_channels": [8], "layers_per_block": 1, "in_channels": 4,
                             "down_block_types": ["CrossAttnDownBlock2D"],
                             "up_block_types": ["CrossAttnUpBlock2D"], "sample_size": 8},
        "vae/config.json": {"block_out_channels": [8], "latent_channels": 4},
        "text_encoder/config.json": {"vocab_size": 99, "hidden_size": 8},
        "scheduler/scheduler_config.json": {"_class_name": "DDIMScheduler"},
        "tokenizer/tokenizer_config.json": {"pad_token": "!"},
        "tokenizer/vocab.json": {"!": 0, "a": 1},
    }  # fmt: skip
    name = rng.choice(sorted(configurations))
    for other, tree in configurations.items():
        (folder / other).parent.mkdir(exist_ok=True)
        changed = as_json(tree)
        if other == name:
            changed = (
                as_json(in_values(rng, tree)) if rng.random() < 0.7 else in_bytes(rng, changed)
            )
        (folder / other).write_bytes(changed)
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    for part in ("unet", "vae", "text_encoder"):
        (folder / part / "model.safetensors").write_bytes(stored("safetensors"))
    convert_weights(folder)


@reader
def names_of_models(rng, folder):
    load(rng.choice((*NAMES, *PLACES, "speech/", str(folder), "speech\n")))


@reader
def names_of_sources(rng, folder):
    name = rng.choice((*NAMES, *PLACES))
    kind = rng.choice((Images, Recordings, TextSource))
    source = kind(name)
    source.recordings() if kind is Recordings else source.listing()


@reader
def commands(rng, folder):
    kind = rng.choice(("wav", "npy", "npz", "safetensors", "flac"))
    path = file_in(folder, rng, in_bytes(rng, stored(kind)), kind)
    out = folder / "out" / "spoken.wav"
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        status = run(["synth", str(path), "-o", str(out), "--steps", "1"])
    assert status in (0, 2), status
    if status == 0:
        soundfile.read(out)
    else:
        assert not out.exists()
        raise InputError(*[one.removeprefix("multidiff: ") for one in err.getvalue().splitlines()])


class Hang(BaseException):
    """A case took too long."""


def _hang(*_):
    raise Hang


def _is_named(name, reported, folder):
    """Whether a message names the file it is about."""
    names = [printable(one.name) for one in folder.rglob("*")]
    return name.startswith("names_of") or any(one in reported for one in (*names, str(folder)))


def outcome(name, rng, folder):
    """What one case comes to, and what is wrong with it."""
    handlers = {one: signal.signal(one, _hang) for one in (signal.SIGALRM, signal.SIGPROF)}
    signal.setitimer(signal.ITIMER_PROF, LONGEST_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, LONGEST_WAIT_SECONDS)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        READERS[name](rng, folder)
        result, reported = "read", ""
    except InputError as fault:
        result, reported = "refused", str(fault)
        is_clean = reported.strip() and reported.replace("\n", "").isprintable()
        if not is_clean or not _is_named(name, reported, folder):
            result = "unclean"
    except Hang:
        result, reported = "hang", traceback.format_exc()
    except BaseException:
        result, reported = "traceback", traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for one, handler in handlers.items():
            signal.signal(one, handler)
    if time.process_time() - began > LONGEST_SECONDS:
        result = "hang"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    if grown > MOST_BYTES:
        result, reported = "bomb", f"{grown:,} bytes more: {reported}"
    if left := [path for path in folder.rglob("*") if ".tmp" in path.name]:
        result, reported = "half-written", f"{left}: {reported}"
    return result, reported


def fuzz(seed, count, names=(), show=False):
    """Run that many cases, spread over the readers; return counts by reader and the faults."""
    counts, faults = {}, []
    names = list(names or READERS)
    for number in range(count):
        name = names[number % len(names)]
        rng = random.Random(f"{seed} {name} {number}")
        with tempfile.TemporaryDirectory() as root:
            result, reported = outcome(name, rng, Path(root))
        counts.setdefault(name, Counter())[result] += 1
        if result not in ("read", "refused"):
            faults.append((name, number, result, reported))
        if show:
            print(f"{name} {number} {result}: {reported.replace(root, '')[:300]}", flush=True)
    return counts, faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", action="append", choices=[*READERS])
    parser.add_argument("--show", action="store_true", help="print each case")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(1)
    for module in ("datasets", "transformers", "tokenizers", "multidiff.training.trainer"):
        importlib.import_module(module)  # not within a case, which may be cut short
    logging.disable(logging.CRITICAL)
    faulthandler.enable()
    with (
        contextlib.redirect_stderr(io.StringIO()) if not options.show else contextlib.nullcontext()
    ):
        counts, faults = fuzz(options.seed, options.cases, options.reader or (), options.show)
    kinds = ("read", "refused", "traceback", "hang", "bomb", "unclean", "half-written")
    print(f"{'reader':<20}", *(f"{kind:>12}" for kind in kinds))
    for name, found in counts.items():
        print(f"{name:<20}", *(f"{found[kind]:>12}" for kind in kinds))
    total = sum(counts.values(), Counter())
    print(f"{'all':<20}", *(f"{total[kind]:>12}" for kind in kinds))
    for name, number, result, reported in faults:
        print(f"\n{name} {number}: {result}\n{reported}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

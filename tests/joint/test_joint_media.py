"""One model of several media: exact values, every subset, what is hidden, and bad input."""

import itertools
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from joint_models import SHAPES, Numbers, joint_process, model_of
from PIL import Image
from program import RECIPES
from torch import nn

from multidiff.cli.main import run
from multidiff.config.recipe import to_yaml
from multidiff.data.batches import Batches
from multidiff.joint.denoiser import JointTokenDenoiser
from multidiff.joint.domain import MISSING, StreamDomain, TokenCache
from multidiff.joint.evaluation import subset_nelbo
from multidiff.joint.records import Cell, Records
from multidiff.joint.sampling_config import JointSamplingConfig
from multidiff.joint.streams import TextStream, WordList
from multidiff.models.loading import check_recipe, load, save_model
from multidiff.utils.errors import InputError


class Table(nn.Module):
    """The exact network of a table of probabilities of two tokens, one for each part."""

    def __init__(self, table):
        super().__init__()
        self.table = table

    def forward(self, xt, level, condition=None):
        a, b = xt["a"][:, 0], xt["b"][:, 0]
        beside_b = torch.cat([self.table, self.table.sum(dim=1, keepdim=True)], dim=1)
        beside_a = torch.cat([self.table, self.table.sum(dim=0, keepdim=True)], dim=0)
        return {"a": beside_b.T[b].log()[:, None], "b": beside_a[a].log()[:, None]}


def test_bounds_of_two_tokens_are_exact():
    table = torch.rand(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) ** 2
    table /= table.sum()
    process, rng = joint_process({"a": (4, 1), "b": (4, 1)}), torch.Generator().manual_seed(0)
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(4)).repeat_interleave(400, dim=0)
    x0 = {"a": pairs[:, :1], "b": pairs[:, 1:]}

    def bound(make, given=()):
        found = subset_nelbo(process, Table(table), x0, make, given, num_times=2, rng=rng)
        return found.mean(dim=1).view(16, 400).mean(dim=1)

    # One token alone has one choice of masks, so every draw is the exact value.
    assert torch.allclose(bound(["a"]), -table.sum(1).log().repeat_interleave(4), atol=1e-6)
    given_b = -(table / table.sum(0)).log().flatten()
    assert torch.allclose(bound(["a"], ["b"]), given_b, atol=1e-6)
    joint = bound(["a", "b"])
    assert torch.allclose(joint, -table.log().flatten(), atol=0.2)
    entropy = float((table.flatten() * joint).sum())
    assert entropy == pytest.approx(float(torch.special.entr(table).sum()), abs=0.02)
    marginals = sum(float((table.flatten() * bound([one])).sum()) for one in "ab")
    assert entropy < marginals


def test_given_tokens_are_returned_and_no_table_is_left():
    model = model_of()
    media = {n: [[number % size for number in range(long)]] for n, (size, long) in SHAPES.items()}
    for count in range(3):
        for given in itertools.combinations(SHAPES, count):
            found = model.generate({n: media[n] for n in given}, seed=3, guidance_scale=2.0)
            assert set(found) == set(SHAPES)
            for name, (size, long) in SHAPES.items():
                (one,) = found[name]
                assert len(one) == long and max(one) < size
                assert name not in given or one == media[name][0]


def test_a_kept_beginning_stays_and_the_rest_is_made():
    model = model_of()
    found = model.generate({"audio": [[3] * 8]}, ["audio"], keep={"audio": 0.5}, num=8, seed=1)
    assert all(one[:4] == [3] * 4 for one in found["audio"])
    assert any(one[4:] != [3] * 4 for one in found["audio"]) and set(found) == {"audio"}


def test_a_medium_has_its_own_guidance():
    given = {"text": [[1, 2, 3]], "audio": [[1] * 8]}
    config = JointSamplingConfig(guidance_scale=4.0, media_guidance="image=1, audio=2")
    model = model_of(sampling=config)

    def made(**options):
        return model.generate(given, ["image"], num=6, **options)["image"]

    assert made() == made(guidance_scale=1.0) != made(media_guidance="audio=2")
    # A scale that a call sets holds for all media, unless it sets theirs too.
    assert made(guidance_scale=4.0) == made(media_guidance="audio=2")
    assert made(guidance_scale=4.0, media_guidance="image=1") == made()
    # Media that are made at once share one scale.
    alone = model.generate({"text": [[1, 2, 3]]}, num=4, order="together")
    assert alone == model.generate(
        {"text": [[1, 2, 3]]}, num=4, order="together", guidance_scale=4.0
    )


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"media_guidance": "imge=2"}, "imge: the model has no such medium: did you mean image"),
        ({"media_guidance": "image"}, "--media-guidance image: write MEDIUM=SCALE"),
        ({"media_guidance": "image=-1"}, "image=-1: write MEDIUM=SCALE"),
        ({"media_guidance": "image=nan"}, "image=nan: write MEDIUM=SCALE"),
        ({"media_guidance": "image=1,image=2"}, "image=2: write MEDIUM=SCALE, each medium once"),
        ({"media_guidance": "image=2", "order": "together"}, "share one --guidance-scale"),
    ],
)
def test_guidance_of_media_that_cannot_be_is_refused(options, complaint):
    with pytest.raises(InputError, match=complaint):
        model_of().generate(make=["image"], **options)


def test_a_sample_depends_on_its_seed_alone():
    model = model_of()
    every = model.generate(num=5, seed=7, batch_size=5)
    assert every == model.generate(num=5, seed=7, batch_size=2)
    alone = model.generate(num=1, seed=9)
    assert all(every[name][2] == alone[name][0] for name in SHAPES)


def test_the_content_of_hidden_media_changes_nothing():
    model = model_of()
    x0 = {n: torch.randint(size, (6, long)) for n, (size, long) in SHAPES.items()}
    other = {**x0, "audio": (x0["audio"] + 1) % 4}
    values = [
        subset_nelbo(model.process, model.denoiser, one, ["image"], ["text"],
                     num_times=3, rng=torch.Generator().manual_seed(0))
        for one in (x0, other)
    ]  # fmt: skip
    assert torch.equal(*values)


def test_missing_media_are_hidden_and_unscored():
    seen = []

    class Spy(JointTokenDenoiser):
        def forward(self, xt, level, condition=None):
            seen.append(xt)
            return super().forward(xt, level, condition)

    model = model_of(denoiser=Spy(SHAPES, width=16, layers=1, heads=2), given=0.4, left_out=0.2)
    batch = {n: torch.randint(size, (64, long)) for n, (size, long) in SHAPES.items()}
    batch["audio"][:32] = MISSING
    losses = model.task().losses(batch, torch.Generator().manual_seed(0))
    assert bool((seen[0]["audio"][:32] == 4).all()) and bool((seen[0]["audio"][32:] != 4).any())
    assert bool((losses["audio"][:32] == 0).all()) and bool((losses["audio"][32:] > 0).any())


def test_each_medium_weighs_the_same_however_long():
    class Even(nn.Module):
        def forward(self, xt, level, condition=None):
            return {n: one.new_zeros((*one.shape, SHAPES[n][0])).float() for n, one in xt.items()}

    for factor in (1, 2):
        shapes = {
            n: (size, long * factor if n == "image" else long) for n, (size, long) in SHAPES.items()
        }
        model = model_of(shapes, Even(), left_out=1.0)
        batch = {n: torch.randint(size, (8, long)) for n, (size, long) in shapes.items()}
        for name, one in model.task().losses(batch, torch.Generator()).items():
            assert torch.allclose(one, torch.full((8,), math.log(SHAPES[name][0])), atol=1e-5)


class Copies(nn.Module):
    """The exact network of three media that are the same digit; one medium may see only text."""

    def __init__(self, through_text=False):
        super().__init__()
        self.through_text = through_text

    def forward(self, xt, level, condition=None):
        found = {}
        for name in xt:
            others = [n for n in xt if n != name and (not self.through_text or "text" in (n, name))]
            logits = torch.zeros(len(xt[name]), 1, 10)
            for other in others:
                known = xt[other][:, 0] < 10
                logits[known] = -100.0
                logits[known, 0, xt[other][known, 0]] = 0.0
            found[name] = logits
        return found


DIGITS = {"image": (10, 1), "audio": (10, 1), "text": (10, 1)}
TEXT_FIRST = JointSamplingConfig(steps=4, order="text,image,audio", bridge="text")


def agreement(found):
    rows = [*zip(*found.values(), strict=True)]
    return sum(all(one == row[0] for one in row) for row in rows) / len(rows)


def test_one_after_the_other_agrees_and_all_at_once_does_not():
    model = model_of(DIGITS, Copies(), TEXT_FIRST)
    assert agreement(model.generate(num=50)) == 1
    assert agreement(model.generate(num=50, order="together", steps=1)) < 0.2


def test_the_text_is_a_silent_bridge():
    model = model_of(DIGITS, Copies(through_text=True), TEXT_FIRST)
    given = {"audio": [[number % 10] for number in range(30)]}
    bridged = model.generate(given, ["image"])
    assert set(bridged) == {"audio", "image"} and agreement(bridged) == 1
    assert agreement(model.generate(given, ["image"], bridge="none")) < 0.4


class Undecided(nn.Module):
    """Three of four words are as likely, one is a little likelier, whatever is given."""

    def forward(self, xt, level, condition=None):
        logits = torch.full((10,), -100.0)
        logits[:4] = torch.tensor([0.0, 0.0, 0.5, 0.0])
        return {name: logits.expand(len(one), 1, 10) for name, one in xt.items()}


def test_the_likeliest_text_of_what_is_given_and_any_of_nothing():
    """short_temperature holds only where a medium is given or was made before."""
    model = model_of(DIGITS, Undecided(), TEXT_FIRST)
    given = {"image": [[n % 10] for n in range(40)]}
    asked = {"short_temperature": 0.0}
    assert {*map(tuple, model.generate(given, ["text"], **asked)["text"])} == {(2,)}
    assert len({*map(tuple, model.generate(given, ["text"])["text"])}) == 4
    made = model.generate(num=40, **asked)
    assert len({*map(tuple, made["text"])}) == 4 and {*map(tuple, made["image"])} == {(2,)}


class LikeTheNext(nn.Module):
    """Each token is as the one after it; the last is any, and others are 0 until that is known."""

    def forward(self, xt, level, condition=None):
        after = torch.cat([xt["text"][:, 1:], torch.full_like(xt["text"][:, :1], 11)], dim=1)
        wanted = nn.functional.one_hot(after.where(after != 10, 0), 12)[..., :10].float()
        image = torch.zeros(len(after), 1, 10)
        return {"image": image, "text": 100 * wanted}


def test_short_media_are_generated_from_either_end():
    shapes = {"image": (10, 1), "text": (10, 3)}
    model = model_of(shapes, LikeTheNext(), JointSamplingConfig(steps=4, order="text,image"))
    forward = model.generate(make=["text"], num=30)["text"]
    backward = model.generate(make=["text"], num=30, short_order="backward")["text"]
    assert all(one[:2] == [0, 0] for one in forward) and len({one[2] for one in forward}) > 5
    assert all(len({*one}) == 1 for one in backward) and len({*map(tuple, backward)}) > 5


def test_blanks_of_a_text_and_unknown_words():
    stream = TextStream(WordList(("a", "seven", "handwritten")), 4)
    text, tokens = stream.known(Cell("a [MASK] seven", "given"))
    assert tokens.tolist() == [3, stream.size, 4, 1] and text == "a [MASK] seven"
    assert stream.decode(torch.tensor([[3, 5, 4, 1]]), [0]) == ["a handwritten seven"]
    with pytest.raises(InputError, match=r"given: the model does not know 'sevn'.*seven"):
        stream.known(Cell("a sevn", "given"))
    with pytest.raises(InputError, match="has 4 tokens"):
        stream.known(Cell("a a a a", "given"))
    with pytest.raises(InputError, match="not a text"):
        stream.known(Cell(" ", "given"))


# ------------------------------------------------------------------------ media in files


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of the smoke recipe's model, untrained."""
    folder = tmp_path_factory.mktemp("joint") / "model"
    recipe = RECIPES / "smoke" / "captioned_speech.yaml"
    parts = check_recipe(recipe)
    torch.manual_seed(0)
    save_model(parts["model"].build(), folder, to_yaml({"model": parts["model"].resolved}))
    return folder


def tone(path, rate, seconds=0.5, channels=1):
    time = np.arange(int(rate * seconds)) / rate
    wave = 0.3 * np.sin(2 * np.pi * 440 * time) * np.minimum(1, 20 * time)
    soundfile.write(path, np.stack([wave] * channels, axis=1), rate)
    return path


def test_sounds_of_other_rates_and_lengths(built, tmp_path):
    stream = load(built).domain["audio"]
    own = stream.known(Cell(tone(tmp_path / "8.wav", 8000), "a"))[1]
    other = stream.known(Cell(tone(tmp_path / "44.wav", 44100, channels=2), "b"))[1]
    assert float((own == other).float().mean()) > 0.9
    with pytest.raises(InputError, match=r"c: takes 8\.00 s.*cut it"):
        stream.known(Cell(tone(tmp_path / "long.wav", 8000, 8.0), "c"))
    with pytest.raises(InputError, match="d: is silent"):
        stream.read(Cell(torch.zeros(4000), "d"))


def sampled(capsys, *words):
    status = run(["sample", *map(str, words)])
    return status, capsys.readouterr().err.strip().splitlines()


def test_files_of_samples(built, tmp_path, capsys):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    out = tmp_path / "out"
    words = (built, "--given", f"image={tmp_path / 'red.png'}", "-n", 2, "-o", out)
    assert sampled(capsys, *words) == (0, [])
    found = json.loads((out / "manifest.json").read_text())
    assert [row["seed"] for row in found["samples"]] == [0, 1]
    texts = (out / "text.txt").read_text().splitlines()
    assert texts == [row["text"] for row in found["samples"]]
    wave, rate = soundfile.read(out / "001-audio.wav")
    assert rate == 8000 and len(wave)
    assert np.array_equal(
        np.array(Image.open(out / "000-image.png")), np.full((64, 64, 3), [255, 0, 0])
    )
    status, (line,) = sampled(capsys, *words)
    assert status == 2 and "name another folder" in line


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--make", "video"], "video: the model has no such medium"),
        (["--given", "vidoe=a.png"], "the model has no medium 'vidoe'"),
        (["--given", "text=a cat", "--make", "text"], "text: is given and to be made"),
        (["--given", "text=a caat"], "does not know 'caat': did you mean cat"),
        (["--given", "text"], "write MEDIUM=VALUE"),
        (["--given", "image=no.png"], "no.png"),
        (["--keep", "image=0.5"], "of a given medium"),
        (["--given", "text=a cat", "--keep", "text=half"], "write a fraction"),
        (["--prompt", "a cat"], "use --given text='a cat'"),
        (["--order", "text,vidoe"], "vidoe: the model has no such medium"),
    ],
)
def test_bad_requests_are_one_line(built, tmp_path, capsys, words, line):
    status, lines = sampled(capsys, built, *words, "-o", tmp_path / "out")
    assert status == 2 and len(lines) == 1 and line in lines[0]
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_an_image_of_another_size_is_refused(tmp_path):
    recipe = RECIPES / "smoke" / "captioned_speech.yaml"
    changes = ["model.streams.image.resize=false"]
    model = check_recipe(recipe, changes)["model"].build()
    with pytest.raises(InputError, match=r"an image of 30x20; this model's have 64x64: resize it"):
        model.generate({"image": torch.zeros(3, 20, 30, dtype=torch.uint8)})
    with pytest.raises(InputError, match="nothing to make"):
        image = torch.zeros(3, 64, 64, dtype=torch.uint8)
        model.generate({"image": image, "audio": torch.rand(4000), "text": "a cat"})


def test_requests_from_python_are_checked(built):
    model = load(built)
    sound = 0.1 * torch.sin(torch.arange(4000) / 9)
    stream = model.domain["audio"]
    single = stream.known(Cell(sound, "a"))[1]
    assert torch.equal(stream.known(Cell(sound.double(), "b"))[1], single)
    with pytest.raises(InputError, match="c: has samples that are not finite"):
        stream.read(Cell(torch.full((4000,), torch.nan), "c"))
    for options in ({"num": 0}, {"num": -1}, {"batch_size": 0}, {"batch_size": -1}):
        (name,) = options
        with pytest.raises(InputError, match=f"{name} {options[name]}: must be at least 1"):
            model.generate(make=["text"], **options)
    with pytest.raises(InputError, match="given text 0 for 0 samples"):
        model.generate({"text": []}, ["image"])


def test_a_column_that_is_missing_is_named_and_blanks_are_refused(tmp_path, caplog):
    path = tmp_path / "records.csv"
    path.write_text("text\na cat\n")
    domain = StreamDomain(
        {name: Numbers(*SHAPES[name]) for name in ("image", "audio")}
        | {"text": TextStream(WordList(("a", "cat", "b", "c", "d", "e")), 3)}
    )
    model = SimpleNamespace(domain=domain)
    TokenCache()(model, Batches(Records(str(path)), batch_size=1))
    assert "has no column image, audio" in caplog.text
    path.write_text("text\na [MASK]\n")
    with pytest.raises(InputError, match=r"text: a text of the records has \[MASK\]"):
        TokenCache()(model, Batches(Records(str(path)), batch_size=1))


def test_two_texts_have_one_vocabulary_or_are_refused():
    one, same, other = (Numbers(*SHAPES["text"]) for _ in range(3))
    for stream, words in ((one, "a b"), (same, "a b"), (other, "c d")):
        stream.assets = lambda words=words: {"vocabulary.json": words}
    with pytest.raises(InputError, match=r"streams\.other: its vocabulary\.json.*one vocabulary"):
        StreamDomain({"one": one, "other": other}).assets()
    assert StreamDomain({"one": one, "same": same}).assets() == {"vocabulary.json": "a b"}


def test_tokens_are_where_the_streams_are():
    """Of texts too, which no network encodes, and of media that all records lack."""
    placed = Numbers(*SHAPES["image"])
    placed.weight = nn.Parameter(torch.zeros(1, device="meta"))
    text = TextStream(WordList(("a", "cat")), 3)
    domain = StreamDomain({"image": placed, "text": text})
    assert domain.tokens("text", [Cell("a cat", "one")]).device.type == "meta"
    assert domain.tokens("image", [None]).device.type == "meta"


def test_records_with_empty_cells(tmp_path, caplog):
    path = tmp_path / "records.csv"
    path.write_text("image,text,digit\na.png,,1\n,,2\n,two,2\n")
    records = Records(str(path))
    assert records.media == ("image", "text") and len(records) == 2
    assert "1 records have none" in caplog.text
    cell = records.cell(0, "image")
    assert cell.file() == tmp_path / "a.png" and records.cell(0, "text") is None
    assert records.cell(1, "text").value == "two"
    with pytest.raises(InputError, match=r"no column 'txet'.*text"):
        Records(str(path), media=("txet",))
    path.write_text("image,text\n,\n")
    with pytest.raises(InputError, match="no record has any of image, text"):
        Records(str(path))
    path.write_text("label\n1\n")
    with pytest.raises(InputError, match="has no column image, audio, text"):
        Records(str(path))


def test_bounds_by_the_command_line(built, capsys):
    assert run(["eval", str(built), "starter:records/records.csv", "--looks", "1"]) == 0
    shown = capsys.readouterr().out
    assert "image + audio + text" in shown and "not mutual information" in shown
    assert run(["eval", str(built)]) == 2

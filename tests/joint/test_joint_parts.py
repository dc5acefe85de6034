"""Media of one's own names, sizes and lengths, alone and in parts."""

import pytest
import torch
from joint_models import joint_process
from program import RECIPES

from multidiff.audio.mel import MelPreset
from multidiff.data.batches import Batches
from multidiff.image.data.image_files import read_image, write_image
from multidiff.joint.cli import sample
from multidiff.joint.denoiser import JointTokenDenoiser
from multidiff.joint.domain import TokenCache
from multidiff.joint.evaluation import measure
from multidiff.joint.model import JointModel
from multidiff.joint.records import Cell, Records
from multidiff.joint.sampling_config import JointSamplingConfig
from multidiff.joint.sound_tokens import MelAutoencoder
from multidiff.joint.streams import (
    SoundStream,
    TextStream,
    TokenStream,
    WordList,
    postfiltered,
)
from multidiff.models.loading import check_recipe
from multidiff.models.moving import move_into
from multidiff.models.weights import without_values
from multidiff.utils.errors import InputError


def texts_of(**lengths):
    """A model of texts alone."""
    streams: dict[str, TokenStream] = {
        name: TextStream(WordList(("a", "b")), long) for name, long in lengths.items()
    }
    shapes = {name: (one.size, one.length) for name, one in streams.items()}
    net = JointTokenDenoiser(shapes, width=16, layers=1, heads=2)
    return JointModel(streams, joint_process(shapes), net).eval()


def test_bounds_are_of_the_columns_that_are_the_models_media(tmp_path):
    path = tmp_path / "records.csv"
    path.write_text("text,question,answer\na,a b,b\nb,b,\n")
    model = texts_of(question=4, answer=3, hint=2)
    report = measure(model, str(path), tmp_path, seed=0, looks=1)
    counts = {name: one["records"] for name, one in report.facts["bounds"].items()}
    assert counts == {"question": 2, "answer": 1, "question|answer": 1, "answer|question": 1}
    with pytest.raises(InputError, match=r"no column left, right; name its columns so"):
        measure(texts_of(left=3, right=3), str(path), tmp_path, seed=0)


class Plain(TokenStream):
    """Images of one grey or colour, darker for each token."""

    ending, size, length = ".png", 4, 2

    def __init__(self, *shape):
        super().__init__()
        self.shape = shape

    def decode(self, tokens, seeds):
        return [torch.full(self.shape, 40 * int(row[0]), dtype=torch.uint8) for row in tokens]

    def write(self, medium, path):
        write_image(medium, path)


def test_a_medium_without_a_column_is_missing_with_and_without_a_first_pass(tmp_path, caplog):
    path = tmp_path / "records.csv"
    path.write_text("question,text\na b,a\nb,\n")
    model = texts_of(question=4, answer=3)
    plain = Batches(Records(str(path), media=("question",)), batch_size=2, shuffle=False)
    found = [
        model.domain.encode(batches.batch(number), None)
        for batches in (plain, TokenCache()(model, plain))
        for number in range(2)
    ]
    for one in found[1:]:
        for name in model.domain:
            assert torch.equal(one.x0[name], found[0].x0[name])
            assert torch.equal(one.mask[name], found[0].mask[name])
    assert bool(found[0].mask["question"].all()) and not bool(found[0].mask["answer"].any())
    assert caplog.text.count("a batch: has no column answer: it is not trained") == 1
    assert caplog.text.count("records.csv: has no column answer: it is not trained") == 1
    strange = Batches(Records(str(path), media=("text",)), batch_size=2)
    with pytest.raises(InputError, match="a batch: has no column question, answer; name its"):
        model.domain.encode(strange.batch(0), None)
    with pytest.raises(InputError, match=r"records\.csv: has no column question, answer; name its"):
        TokenCache()(model, strange)


def test_texts_alone_are_where_the_model_is():
    model = texts_of(question=4, answer=3)
    keys = [*model.state_dict()]
    assert not any(key.startswith("domain.") for key in keys)  # checkpoints stay as they were
    batch = {"question": [Cell("a b", "one")], "answer": [None]}
    assert model.domain.encode(batch, None).x0["question"].device.type == "cpu"
    encoded = model.to("meta").domain.tokens("question", batch["question"])
    assert encoded.device.type == model.domain.device.type == "meta"
    with without_values():
        again = texts_of(question=4, answer=3)
    tensors = texts_of(question=4, answer=3).state_dict()
    move_into(again, {**tensors}, "x")
    assert [*tensors] == keys and again.domain.device.type == "cpu"


def test_a_model_that_is_cast_makes_and_reads_all_media():
    recipe = check_recipe(RECIPES / "smoke" / "captioned_speech.yaml")["model"]
    torch.manual_seed(0)
    model = recipe.build().eval()
    wave = 0.3 * torch.sin(torch.arange(8000) / 9)
    given = {"audio": wave, "image": torch.randint(256, (3, 64, 64), dtype=torch.uint8)}
    known = model._given(given, {}, None)[1]
    weights = {name: one.clone() for name, one in model.domain.state_dict().items()}
    for dtype in (torch.bfloat16, torch.float16, torch.float64, torch.float32):
        model.to(dtype)
        assert model.denoiser.bias["text"].dtype == dtype
        made = model.generate(num=1, steps=2)
        assert made["audio"][0].dtype == torch.float32 and made["image"][0].shape == (3, 64, 64)
        assert model.generate(given, ["text"], steps=2)["text"]
        cast = model._given(given, {}, None)[1]
        assert all(torch.equal(one, known[name]) for name, one in cast.items())
    for name, one in model.domain.state_dict().items():
        assert one.dtype == weights[name].dtype and torch.equal(one, weights[name])
    assert {one.device.type for one in model.to("meta").domain.parameters()} == {"meta"}


def test_a_grid_of_images_of_two_sizes(tmp_path):
    shapes = {"small": (4, 2), "large": (4, 2)}
    net = JointTokenDenoiser(shapes, width=16, layers=1, heads=2)
    streams: dict[str, TokenStream] = {"small": Plain(1, 4, 6), "large": Plain(3, 10, 8)}
    model = JointModel(streams, joint_process(shapes), net).eval()
    for count, (columns, rows) in {1: (2, 1), 2: (2, 2), 5: (4, 3)}.items():
        out = tmp_path / str(count)
        sample(model, num=count, out=out, sampling=JointSamplingConfig(steps=2))
        shown = read_image(out / "grid.png")
        assert shown.shape == (3, 10 * rows + 2 * (rows - 1), 8 * columns + 2 * (columns - 1))
        first = [read_image(out / f"000-{name}.png") for name in shapes]
        assert bool((shown[:, :3, :8] == 255).all()) and bool((shown[:, :, 8:10] == 255).all())
        assert torch.equal(shown[:, 3:7, 1:7], first[0].expand(3, -1, -1))
        assert torch.equal(shown[:, :10, 10:18], first[1])


def test_a_fraction_of_a_short_text_or_sound_is_one_of_its_own_length():
    words = TextStream(WordList(("a", "b")), 12)
    mel = MelPreset("short", 8000, 256, 256, 64, n_mels=8, f_min_hz=0, f_max_hz=4e3)
    sound = SoundStream(MelAutoencoder(mel, 40, 8, 1, (4, 3)))
    shapes = {"text": (words.size, 12), "audio": (sound.size, sound.length)}
    net = JointTokenDenoiser(shapes, width=16, layers=1, heads=2)
    model = JointModel({"text": words, "audio": sound}, joint_process(shapes), net)
    wave = torch.rand(sound.autoencoder.num_samples // 2)
    given = {"text": ["a b a b", "a b"], "audio": wave}
    wanted = {0.5: ([2, 1], 10), 1.0: ([12, 12], 40), 0.0: ([0, 0], 0)}
    for fraction, (texts, audio) in wanted.items():
        media, known = model._given(given, dict.fromkeys(given, fraction), 2)
        counts = {n: (one != shapes[n][0]).sum(dim=1).tolist() for n, one in known.items()}
        assert counts == {"text": texts, "audio": [audio] * 2}
        assert torch.equal(media["audio"][1], wave)  # as it was recorded


def test_a_postfilter_raises_the_contrast_and_leaves_what_has_none():
    flat = torch.full((1, 8, 6), -3.0)
    loud = torch.ones(1, 6, dtype=torch.bool)
    assert torch.allclose(postfiltered(flat, 1.5, loud), flat)
    # Frames that differ by one level alone: their differences from the loud frames' mean grow.
    steps = torch.tensor([0.0, 2.0, 4.0, -9.0]).expand(1, 8, 4)
    loud = torch.tensor([[True, True, True, False]])
    found = postfiltered(steps, 1.5, loud)
    assert torch.allclose(found[0, 0].diff(), torch.tensor([3.0, 3.0, -19.5]))
    # One band above its neighbours rises by the factor times what it is above their mean.
    bands = torch.zeros(1, 9, 3)
    bands[:, 4] = 5.0
    found = postfiltered(bands, 2.0, torch.ones(1, 3, dtype=torch.bool))
    expected = torch.tensor([0.0, 0, -1, -1, 9, -1, -1, 0, 0])
    assert torch.allclose(found[0, :, 0].diff(), expected.diff(), atol=1e-5)
    # The energy stays.
    for before, after in ((steps, postfiltered(steps, 1.5, loud)), (bands, found)):
        assert torch.allclose((2 * after).exp().sum(), (2 * before).exp().sum(), rtol=1e-4)


def test_a_postfiltered_sound_ends_where_it_did():
    torch.manual_seed(0)
    mel = MelPreset("short", 8000, 256, 256, 64, n_mels=8, f_min_hz=0, f_max_hz=4e3)
    plain = SoundStream(MelAutoencoder(mel, 40, 8, 1, (4, 3)))
    strong = SoundStream(plain.autoencoder, postfilter=1.3)
    tokens = torch.randint(plain.size, (3, plain.length))
    before, after = plain.decode(tokens, [1, 2, 3]), strong.decode(tokens, [1, 2, 3])
    assert [*map(len, before)] == [*map(len, after)]
    assert not torch.allclose(before[0], after[0], atol=1e-4)
    assert all(bool(torch.isfinite(one).all()) for one in after)
    with pytest.raises(ValueError, match="postfilter 0: must be above 0"):
        SoundStream(plain.autoencoder, postfilter=0)

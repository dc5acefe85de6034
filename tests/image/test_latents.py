"""The first pass over images, and weights that training starts from."""

import pytest
import torch

import multidiff as md
from multidiff.image.data import latents
from multidiff.image.data.image_files import to_unit
from multidiff.image.data.images import Images, ImageSource
from multidiff.image.data.latents import LatentCache
from multidiff.models.init_weights import InitFrom
from multidiff.models.train import train_recipe
from multidiff.utils.errors import InputError

SOURCE = ImageSource("starter:digits", held_out_every=20, label_column="label")


@pytest.fixture
def digits(small_digits):
    return md.load(small_digits)


def batches(**options):
    return md.Batches(Images(SOURCE, channels=1, held_out=True, **options), 4)


def test_kept_latents_are_the_encoders(digits, tmp_path):
    plain = batches()
    kept = LatentCache(str(tmp_path))(digits, plain)
    one, other = plain.batch(1), kept.batch(1)
    assert one["caption"] == other["caption"]
    gaussian = digits.domain.gaussian(to_unit(one["image"]))
    assert torch.allclose(other["latent_mean"], gaussian.mean, atol=1e-5)
    assert torch.allclose(other["latent_log_variance"], gaussian.log_variance, atol=1e-5)
    x0 = [
        digits.domain.encode(batch, torch.Generator().manual_seed(0)).x0 for batch in (one, other)
    ]
    assert torch.allclose(*x0, atol=1e-5)


def test_they_are_read_again_unless_something_changed(digits, tmp_path, caplog):
    cache = LatentCache(str(tmp_path))
    cache(digits, batches())
    (file,) = tmp_path.iterdir()
    before = file.stat().st_mtime_ns
    cache(digits, batches())
    assert [one.stat().st_mtime_ns for one in tmp_path.iterdir()] == [before]
    with torch.no_grad():
        next(digits.domain.autoencoder.parameters()).add_(1)
    cache(digits, batches())
    assert len(list(tmp_path.iterdir())) == 2
    assert caplog.text.count("first pass") == 2


@pytest.mark.parametrize("folder", [True, False], ids=["on disk", "in memory"])
def test_kept_tokens_are_the_autoencoders(small_tokens, tmp_path, folder):
    model = md.load(small_tokens)
    plain = batches()
    kept = LatentCache(str(tmp_path) if folder else None, batch_size=3)(model, plain)
    for number in range(3):
        one, other = plain.batch(number), kept.batch(number)
        assert "image" not in other and other["tokens"].dtype == torch.int32
        assert torch.equal(one["label"], other["label"]) and one["caption"] == other["caption"]
        seen, read = (model.domain.encode(batch, None) for batch in (one, other))
        assert torch.equal(seen.x0, read.x0) and read.x0.dtype == torch.int64
        assert torch.equal(seen.condition["source"], read.condition["source"])
    assert len(read.x0.unique()) > 3 and len(list(tmp_path.iterdir())) == int(folder)


def test_latents_on_disk_are_those_in_memory(digits, tmp_path, monkeypatch):
    expected = LatentCache()(digits, batches())
    monkeypatch.setattr(latents, "MOST_IN_MEMORY", 0)
    monkeypatch.setattr(latents, "IMAGES_OF_A_PART", 64)
    for _ in range(2):
        found = LatentCache(str(tmp_path))(digits, batches())
        one, other = found.batch(1), expected.batch(1)
        assert one.keys() == other.keys() and one["caption"] == other["caption"]
        for key in ("latent_mean", "latent_log_variance", "label"):
            assert torch.equal(one[key], other[key])
        assert len(list(tmp_path.glob("latents-*/columns.json"))) == 1
        monkeypatch.setattr(LatentCache, "write_part", lambda *_: pytest.fail("made again"))


def test_captions_are_kept_beside_tokens(small_tokens):
    source = ImageSource(
        "starter:digits", held_out_every=20, label_column="label",
        templates=("a {}", "one {} by hand"), names=tuple("0123456789"),
    )  # fmt: skip
    images = Images(source, channels=1, held_out=True)
    plain = md.Batches(images, 4)
    kept = LatentCache()(md.load(small_tokens), plain)
    for number in range(4):
        one, other = plain.batch(number), kept.batch(number)
        assert one["caption"] == other["caption"] and all(other["caption"])
    assert images.labels is not None
    assert torch.equal(kept.examples.labels, images.labels)


def test_in_memory(digits):
    kept = LatentCache()(digits, batches())
    assert kept.batch(0)["latent_mean"].shape == (4, 4, 8, 8)
    assert len(kept.examples) == len(batches().examples)


def test_what_has_no_latents(digits, small_pixels):
    with pytest.raises(InputError, match="set flip: false"):
        LatentCache()(digits, batches(flip=True))
    with pytest.raises(InputError, match="only for a LatentDomain or ImageTokenDomain of Images"):
        LatentCache()(md.load(small_pixels), batches())


# ---------------------------------------------------------------------------- starting from


def test_weights_are_taken_from_another_model(digits, small_digits):
    from multidiff.models.loading import RECIPE, build_model

    fresh = build_model(small_digits / RECIPE)
    before = fresh.denoiser.conv_in.weight.clone()
    initial = InitFrom(str(small_digits), "domain.autoencoder", "domain.autoencoder")
    initial.put_into(fresh, digits)
    for one, other in zip(
        fresh.domain.autoencoder.parameters(), digits.domain.autoencoder.parameters(), strict=True
    ):
        assert torch.equal(one, other)
    assert torch.equal(fresh.denoiser.conv_in.weight, before)
    InitFrom(str(small_digits)).put_into(fresh, digits)
    assert torch.equal(fresh.denoiser.conv_in.weight, digits.denoiser.conv_in.weight)


def test_parts_that_are_not_there(digits):
    with pytest.raises(InputError, match="no part 'vae'; it has domain"):
        InitFrom("a model", "vae").put_into(digits, digits)
    with pytest.raises(InputError, match="does not fit"):
        InitFrom("a model", "denoiser", "domain.autoencoder").put_into(digits, digits)


def test_a_recipe_starts_from_a_model(small_digits, tmp_path):
    from program import RECIPES

    train_recipe(
        RECIPES / "smoke" / "digits.yaml",
        [
            f"weights=[{{model: {small_digits}}}]", "trainer.steps=1", "trainer.ema_decay=0.0",
            "trainer.learning_rate=1e-12", f"precompute.folder={tmp_path / 'latents'}",
        ],
        out=tmp_path / "run",
    )  # fmt: skip
    one, other = md.load(small_digits), md.load(tmp_path / "run")
    for (name, weight), found in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.allclose(weight, found, atol=1e-6), name
    assert len(list((tmp_path / "latents").iterdir())) == 1

"""Images to tokens and back: verbs, losses, training, the command line."""

import json

import pytest
import torch
from program import RECIPES, trained

import multidiff as md
from multidiff.cli.main import run
from multidiff.data.batches import ListedBatches
from multidiff.image.autoencoders.codebook import VectorQuantizerEMA
from multidiff.image.autoencoders.discriminator import PatchDiscriminator
from multidiff.image.autoencoders.kl import AutoencoderKL
from multidiff.image.autoencoders.quantizers import FSQ, LFQ, perplexity, usage
from multidiff.image.autoencoders.training import ImageAutoencoder
from multidiff.image.autoencoders.vq import TokenAutoencoder, VQAutoencoder
from multidiff.models.loading import build_model, save_model

SMOKE = RECIPES / "smoke" / "digits_vq.yaml"
TOLD = {"usage", "perplexity"}
QUANTISERS = {
    "codebook": lambda: VectorQuantizerEMA(32, 4, decay=0.9, unit=True),
    "levels": lambda: FSQ((5, 4, 3)),
    "signs": lambda: LFQ(6),
}


def small(quantizer="codebook", **options):
    torch.manual_seed(0)
    inner = VQAutoencoder(QUANTISERS[quantizer](), 1, (8, 16), 1, groups=4)
    return TokenAutoencoder(inner, **options)


def squares(count=8, width=16, height=16):
    rng = torch.Generator().manual_seed(0)
    image = torch.zeros(count, 1, height, width, dtype=torch.uint8)
    for one in image:
        left, top = torch.randint(0, min(width, height) - 6, (2,), generator=rng).tolist()
        one[:, top : top + 6, left : left + 6] = 255
    return {"image": image}


def begun(model):
    """With codes: those of its first batch, and no training."""
    model.losses(squares(), torch.Generator().manual_seed(0))
    return model.eval()


# ---------------------------------------------------------------------------------- verbs


@pytest.mark.parametrize("name", QUANTISERS)
def test_tokens_go_round(name):
    model = begun(small(name))
    tokens = model.encode(squares()["image"])
    assert tokens.shape == (8, 8, 8) and 0 <= int(tokens.min()) <= int(tokens.max()) < model.size
    codes = model.autoencoder.lookup(tokens)
    if name == "codebook":
        again = model.autoencoder.quantizer(codes).tokens
        assert torch.equal(again, tokens)
    made = model.decode(tokens)
    assert made.dtype == torch.uint8 and made.shape == (8, 1, 16, 16)
    assert torch.equal(model.reconstruct(squares()["image"]), made)


def test_pictures_of_any_size_are_padded_and_cut_again():
    model = begun(small())
    image = squares(2, 13, 11)["image"]
    assert model.encode(image).shape == (2, 6, 7)
    assert model.reconstruct(image).shape == image.shape
    assert model.decode(model.encode(image), (13, 11)).shape == image.shape
    assert begun(small(pad_to=8)).encode(image).shape == (2, 8, 8)


def test_what_does_not_fit():
    model = begun(small())
    for tokens in (torch.full((1, 2, 2), 32), torch.full((1, 2, 2), -1)):
        with pytest.raises(ValueError, match="must be in 0 to 31"):
            model.decode(tokens)
    with pytest.raises(ValueError, match="with 3 channels"):
        model.encode(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    with pytest.raises(ValueError, match="15x16"):
        model.autoencoder.encode(torch.zeros(1, 1, 16, 15))
    with pytest.raises(ValueError, match="pad_to 3"):
        small(pad_to=3)


# --------------------------------------------------------------------------------- losses


@pytest.mark.parametrize("name", QUANTISERS)
def test_it_learns_a_batch_by_heart(name):
    """To less than half of what an empty image is wrong by."""
    model, image = small(name), squares(4)["image"]
    trainer = md.Trainer(steps=80, learning_rate=5e-3, ema_decay=0.5)
    trainer.fit(model, [{"image": image}])
    wrong = (model.eval().reconstruct(image).float() - image).abs().mean()
    assert float(wrong) < 0.5 * float(image.float().mean())


def test_the_use_of_codes_is_told_and_not_learnt():
    model = small()
    losses = model.losses(squares(), torch.Generator().manual_seed(0))
    assert set(losses) > TOLD and "commitment" in losses
    assert [losses[name].requires_grad for name in sorted(TOLD)] == [False, False]
    model.eval()
    tokens = model.encode(squares()["image"])
    reported = model.losses(squares(), None)
    for name, of in (("usage", usage), ("perplexity", perplexity)):
        assert torch.equal(reported[name], of(tokens, 32).expand(8))


def test_looking_changes_no_codes():
    """Held-out losses are computed without gradients, or out of training."""
    model = begun(small())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.losses(squares(), None)
    with torch.no_grad():
        model.train().losses(squares(), None)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_losses_of_a_picture_are_its_own():
    model = begun(small(discriminator=PatchDiscriminator(1, 8, 1)))
    batch = squares(3)
    with torch.no_grad():
        whole = model.losses(batch, None)
        alone = model.losses({"image": batch["image"][1:2]}, None)
    assert {"reconstruction", "commitment", "adversarial", "discriminator"} == set(whole) - TOLD
    for name in set(whole) - TOLD:
        assert torch.allclose(whole[name][1:2], alone[name], atol=1e-5), name


def test_encoder_and_codes_learn_of_the_pictures():
    model = small()
    losses = model.losses(squares(), None)
    losses["reconstruction"].sum().backward()
    assert bool(model.autoencoder.encoder.conv_in.weight.grad.abs().sum() > 0)
    assert not any("quantizer" in name for name, _ in model.named_parameters())


def test_saved_names_stay():
    """Those of published and shipped weights, which load by them."""
    plain = ImageAutoencoder(AutoencoderKL(1, (8, 16), 1, 2, groups=4))
    assert {name.split(".")[0] for name in plain.state_dict()} == {"autoencoder", "batches"}
    names = set(small(discriminator=PatchDiscriminator(1, 8)).state_dict())
    quantizer = {f"autoencoder.quantizer.{name}" for name in ("codes", "counts", "sums")}
    assert quantizer | {"batches", "autoencoder.quant_conv.weight"} < names
    assert {name.split(".")[0] for name in names} == {"autoencoder", "batches", "discriminator"}


# ----------------------------------------------------------------- training and what is kept


def fit(folder, steps, resume=False):
    torch.manual_seed(1)
    model = small(discriminator=PatchDiscriminator(1, 8, 1), adversarial_from=3)
    batches = ListedBatches([squares(8), {"image": squares(8)["image"].flip(-1)}])
    trainer = md.Trainer(steps=steps, learning_rate=3e-3, save_every=3, validate_every=3)
    trainer.fit(model, batches, batches, out=folder, resume=resume)
    return model.state_dict()


def test_going_on_equals_never_having_stopped(tmp_path):
    """Codes, counts and the replaced codes too, to the bit."""
    whole = fit(tmp_path / "whole", 6)
    fit(tmp_path / "halves", 3)
    halves = fit(tmp_path / "halves", 6, resume=True)
    assert whole.keys() == halves.keys()
    for name, value in whole.items():
        assert torch.equal(value, halves[name]), name


def test_a_loaded_model_has_the_same_tokens(tmp_path):
    model = begun(build_model(SMOKE))
    save_model(model, tmp_path / "model", SMOKE.read_text())
    loaded = md.load(tmp_path / "model")
    image = squares(8, 28, 28)["image"]
    tokens = model.encode(image)
    assert len(tokens.unique()) > 3 and tokens.shape == (8, 7, 7)
    assert torch.equal(loaded.encode(image), tokens)
    assert torch.equal(loaded.decode(tokens), model.decode(tokens))


def test_it_is_trained_and_measured_by_command(tmp_path, capsys):
    folder = trained(tmp_path / "run", "digits_vq")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert all(set(line) > TOLD for line in lines)
    assert {line["group"] for line in lines} == {"train", "held-out"}
    capsys.readouterr()
    words = ["--classifier", "digit-features", "--most", "40", "--json"]
    assert run(["eval", str(folder), *words]) == 0
    reported = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (
        reported["images"] == 40
        and reported["psnr_db"] > 0
        and reported["classifier"]["frechet"] > 1
    )
    assert reported["tokens"] == [7, 7] and reported["codes"] == 32
    assert 0 < reported["usage"] <= 1 <= reported["perplexity"] <= 32
    assert run(["eval", str(folder), "--most", "20"]) == 0
    assert "of 32 codes used" in capsys.readouterr().out
    assert run(["eval", str(folder), "--steps", "3"]) == 2
    assert "--steps: no such option here" in capsys.readouterr().err

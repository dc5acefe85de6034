"""Pictures to tokens and back: verbs, losses, training, the command line."""

import json

import pytest
import torch
from program import RECIPES, trained

import multidiff as md
from multidiff.cli.main import run
from multidiff.image.autoencoders.codebook import EmaCodebook
from multidiff.image.autoencoders.discriminator import PatchDiscriminator
from multidiff.image.autoencoders.kl import Autoencoder
from multidiff.image.autoencoders.quantizers import FiniteScalar, LookupFree, perplexity, usage
from multidiff.image.autoencoders.training import PictureAutoencoder
from multidiff.image.autoencoders.vq import QuantisedAutoencoder, TokenAutoencoder
from multidiff.models.loading import build_model, save_model
from multidiff.training.batches import ListedBatches

SMOKE = RECIPES / "smoke" / "digits_vq.yaml"
TOLD = {"usage", "perplexity"}
QUANTISERS = {
    "codebook": lambda: EmaCodebook(32, 4, decay=0.9, unit=True),
    "levels": lambda: FiniteScalar((5, 4, 3)),
    "signs": lambda: LookupFree(6),
}


def small(quantiser="codebook", **options):
    torch.manual_seed(0)
    inner = QuantisedAutoencoder(QUANTISERS[quantiser](), 1, (8, 16), 1, groups=4)
    return TokenAutoencoder(inner, **options)


def squares(count=8, width=16, height=16):
    rng = torch.Generator().manual_seed(0)
    picture = torch.zeros(count, 1, height, width, dtype=torch.uint8)
    for one in picture:
        left, top = torch.randint(0, min(width, height) - 6, (2,), generator=rng).tolist()
        one[:, top : top + 6, left : left + 6] = 255
    return {"picture": picture}


def begun(model):
    """With codes: those of its first batch, and no training."""
    model.losses(squares(), torch.Generator().manual_seed(0))
    return model.eval()


# ---------------------------------------------------------------------------------- verbs


@pytest.mark.parametrize("name", QUANTISERS)
def test_tokens_go_round(name):
    model = begun(small(name))
    tokens = model.encode(squares()["picture"])
    assert tokens.shape == (8, 8, 8) and 0 <= int(tokens.min()) <= int(tokens.max()) < model.size
    codes = model.autoencoder.lookup(tokens)
    if name == "codebook":
        again = model.autoencoder.quantiser(codes).tokens
        assert torch.equal(again, tokens)
    made = model.decode(tokens)
    assert made.dtype == torch.uint8 and made.shape == (8, 1, 16, 16)
    assert torch.equal(model.reconstruct(squares()["picture"]), made)


def test_pictures_of_any_size_are_padded_and_cut_again():
    model = begun(small())
    picture = squares(2, 13, 11)["picture"]
    assert model.encode(picture).shape == (2, 6, 7)
    assert model.reconstruct(picture).shape == picture.shape
    assert model.decode(model.encode(picture), (13, 11)).shape == picture.shape
    assert begun(small(pad_to=8)).encode(picture).shape == (2, 8, 8)


def test_what_does_not_fit():
    model = begun(small())
    for tokens in (torch.full((1, 2, 2), 32), torch.full((1, 2, 2), -1)):
        with pytest.raises(ValueError, match="numbered 0 to 31"):
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
    """To less than half of what an empty picture is wrong by."""
    model, picture = small(name), squares(4)["picture"]
    trainer = md.Trainer(steps=80, learning_rate=5e-3, ema_decay=0.5)
    trainer.fit(model, [{"picture": picture}])
    wrong = (model.eval().reconstruct(picture).float() - picture).abs().mean()
    assert float(wrong) < 0.5 * float(picture.float().mean())


def test_the_use_of_codes_is_told_and_not_learnt():
    model = small()
    losses = model.losses(squares(), torch.Generator().manual_seed(0))
    assert set(losses) > TOLD and "commitment" in losses
    assert [losses[name].requires_grad for name in sorted(TOLD)] == [False, False]
    model.eval()
    tokens = model.encode(squares()["picture"])
    told = model.losses(squares(), None)
    for name, of in (("usage", usage), ("perplexity", perplexity)):
        assert torch.equal(told[name], of(tokens, 32).expand(8))


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
        alone = model.losses({"picture": batch["picture"][1:2]}, None)
    assert {"reconstruction", "commitment", "adversarial", "discriminator"} == set(whole) - TOLD
    for name in set(whole) - TOLD:
        assert torch.allclose(whole[name][1:2], alone[name], atol=1e-5), name


def test_encoder_and_codes_learn_of_the_pictures():
    model = small()
    losses = model.losses(squares(), None)
    losses["reconstruction"].sum().backward()
    assert bool(model.autoencoder.encoder.conv_in.weight.grad.abs().sum() > 0)
    assert not any("quantiser" in name for name, _ in model.named_parameters())


def test_saved_names_stay():
    """Those of published and shipped weights, which load by them."""
    plain = PictureAutoencoder(Autoencoder(1, (8, 16), 1, 2, groups=4))
    assert {name.split(".")[0] for name in plain.state_dict()} == {"autoencoder", "batches"}
    names = set(small(discriminator=PatchDiscriminator(1, 8)).state_dict())
    quantiser = {f"autoencoder.quantiser.{name}" for name in ("codes", "counts", "sums")}
    assert quantiser | {"batches", "autoencoder.quant_conv.weight"} < names
    assert {name.split(".")[0] for name in names} == {"autoencoder", "batches", "discriminator"}


# ----------------------------------------------------------------- training and what is kept


def fit(folder, steps, resume=False):
    torch.manual_seed(1)
    model = small(discriminator=PatchDiscriminator(1, 8, 1), adversarial_from=3)
    batches = ListedBatches([squares(8), {"picture": squares(8)["picture"].flip(-1)}])
    trainer = md.Trainer(steps=steps, learning_rate=3e-3, save_every=3, validate_every=3)
    trainer.fit(model, batches, batches, out=folder, resume=resume)
    return model.state_dict()


def test_going_on_equals_never_having_stopped(tmp_path):
    """Codes, counts and the codes drawn anew too, to the bit."""
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
    picture = squares(8, 28, 28)["picture"]
    tokens = model.encode(picture)
    assert len(tokens.unique()) > 3 and tokens.shape == (8, 7, 7)
    assert torch.equal(loaded.encode(picture), tokens)
    assert torch.equal(loaded.decode(tokens), model.decode(tokens))


def test_it_is_trained_and_measured_by_command(tmp_path, capsys):
    folder = trained(tmp_path / "run", "digits_vq")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert all(set(line) > TOLD for line in lines)
    assert {line["group"] for line in lines} == {"train", "held-out"}
    capsys.readouterr()
    words = ["--judge", "digit-features", "--most", "40", "--json"]
    assert run(["eval", str(folder), *words]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["pictures"] == 40 and told["psnr_db"] > 0 and told["judge"]["frechet"] > 1
    assert told["tokens"] == [7, 7] and told["codes"] == 32
    assert 0 < told["usage"] <= 1 <= told["perplexity"] <= 32
    assert run(["eval", str(folder), "--most", "20"]) == 0
    assert "of 32 codes used" in capsys.readouterr().out
    assert run(["eval", str(folder), "--steps", "3"]) == 2
    assert "takes no steps" in capsys.readouterr().err

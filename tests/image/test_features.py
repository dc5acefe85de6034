"""The classifier: augmentation that is what it says, learning, the shipped one, its verb."""

import math

import pytest
import torch
import torch.nn.functional as F
from commands import complains, facts

from multidiff.core.random import generators
from multidiff.data.batches import Batches
from multidiff.image.data.image_files import to_unit, write_image
from multidiff.image.data.images import Images, ImageSource
from multidiff.image.metrics.classifier import ImageClassifier, moved
from multidiff.image.metrics.feature_distance import compare_sets
from multidiff.models.loading import load
from multidiff.training.trainer import Trainer
from multidiff.utils.errors import InputError

DIGITS = ImageSource("starter:digits", label_column="label")


def small(**changes):
    torch.manual_seed(0)
    return ImageClassifier(**{"widths": (16, 24), **changes})


def digits():
    return Images(DIGITS, size=(28, 28), channels=1)


def batch_of(count, seed=0):
    return Batches(digits(), count, seed=seed).batch(0)


@pytest.fixture(scope="module")
def shipped():
    return load("digit-features")


# ------------------------------------------------------------------------ augmentation


def ramps(height, width):
    """Images whose levels are the places, in pixels from the middle: right, then down."""
    down, right = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([right - (width - 1) / 2, down - (height - 1) / 2])[None].double()


@pytest.mark.parametrize(("right", "down", "degrees"), [(2, -1, 0), (0, 0, 90), (1.5, 2.5, -20)])
def test_a_place_is_seen_where_it_was_moved_to(right, down, degrees):
    """Each pixel shows the place that a turn about the middle and then a shift bring to it."""
    position = ramps(21, 33)
    angle = math.radians(degrees)
    shift = torch.tensor([[right, down]], dtype=torch.float64)
    seen = moved(position, shift, torch.tensor([angle], dtype=torch.float64))[0]
    x, y = seen
    # Clockwise as seen, where down is positive.
    found_right = math.cos(angle) * x - math.sin(angle) * y + right
    found_down = math.sin(angle) * x + math.cos(angle) * y + down
    inside = (x.abs() < 15) & (y.abs() < 9)  # beyond, the edge goes on
    assert inside.sum() > 200
    assert torch.allclose(found_right[inside], position[0, 0][inside])
    assert torch.allclose(found_down[inside], position[0, 1][inside])


def test_the_edge_goes_on_beyond_it():
    image = ramps(8, 8)
    seen = moved(image, torch.tensor([[3.0, 0.0]]).double(), torch.zeros(1).double())
    assert torch.allclose(seen[0, 0, :, :4], torch.full((8, 4), -3.5).double())


def test_a_pictures_augmentation_is_its_own():
    model, batch = small(dropout=0.0), batch_of(5)
    together = model.losses(batch, generators(range(5)))["cross_entropy"]
    one = {"image": batch["image"][3:4], "label": batch["label"][3:4]}
    assert torch.allclose(model.losses(one, generators([3]))["cross_entropy"], together[3:4])
    other = model.losses(batch, generators(range(5, 10)))["cross_entropy"]
    assert bool((other != together).all())


def test_held_out_pictures_are_left_as_they_are():
    model, batch = small().eval(), batch_of(4)
    truth = F.cross_entropy(model(to_unit(batch["image"])), batch["label"], reduction="none")
    assert torch.equal(model.losses(batch, generators(range(4)))["cross_entropy"], truth)


# ---------------------------------------------------------------------------- network


def test_features_are_what_the_last_layer_reads():
    model = small(channels=3, size=(20, 12), classes=4).eval()
    image = torch.randint(0, 256, (5, 3, 12, 20)).byte()
    features = model.describe(image)
    assert features.shape == (5, 24) and not features.requires_grad
    assert torch.allclose(model.last(features), model(to_unit(image)))
    alone = torch.cat([model.describe(one[None]) for one in image])
    assert torch.allclose(alone, features, atol=1e-5)
    assert model.metadata() == {
        "kind": "classifier",
        "classes": "4",
        "images": "20x12 in 3 channels",
    }


def test_what_a_classifier_cannot_read():
    model = small()
    with pytest.raises(InputError, match=r"images of 30x28 in 1 channel: .* 28x28 in 1 channel"):
        model.describe(torch.zeros(2, 1, 28, 30, dtype=torch.uint8))
    with pytest.raises(InputError, match="no labels"):
        model.losses({"image": batch_of(2)["image"]}, None)
    for label in (-1, 10):
        batch = {**batch_of(2), "label": torch.tensor([3, label])}
        with pytest.raises(InputError, match=rf"digits\[\d+\]: has label {label}, .* 10 classes"):
            model.losses(batch, None)
    with pytest.raises(ValueError, match="widths \\[12\\]"):
        small(widths=(12,))
    with pytest.raises(ValueError, match="1 classes"):
        small(classes=1)


def test_it_learns():
    model, batch = small(dropout=0.0, shift_pixels=0.0, turn_degrees=0.0), batch_of(16)
    Trainer(steps=80, learning_rate=1e-2, ema_decay=0.5).fit(model.task(), [batch])
    with torch.no_grad():
        assert float(model.losses(batch, None)["cross_entropy"].mean()) < 0.3  # from 2.3


# ------------------------------------------------------------------- shipped, and its verb


def blurred(images):
    return F.avg_pool2d(images.float(), 3, stride=1, padding=1).round().byte()


def noised(images, std, seed=0):
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return (images + std * noise).clamp(0, 255).byte()


def test_the_shipped_features_order_what_spoils_pictures(shipped):
    examples = digits()
    images = torch.stack([examples.image(index) for index in range(len(examples))])
    real = shipped.describe(images)
    xt = [noised(images, std) for std in (20, 50, 100)]
    soft = [blurred(images), blurred(blurred(images))]
    for worse_and_worse in (xt, soft):
        found = [compare_sets(real, shipped.describe(one)) for one in worse_and_worse]
        for name in ("frechet", "kernel"):
            values = [getattr(one, name) for one in found]
            assert values == sorted(values) and values[-1] > 4 * values[0], (name, values)
        for name in ("precision", "recall"):
            values = [getattr(one, name) for one in found]
            assert values == sorted(values, reverse=True) and values[-1] < 0.9, (name, values)


def test_the_shipped_classifier_reads_digits(capsys):
    reported = facts(capsys, "eval", "digit-features", "starter:digits")
    assert reported["count"] == 200 and reported["accuracy"] >= 0.98
    some = facts(capsys, "eval", "digit-features", "starter:digits", "--most", "50")
    assert some["count"] == 50


def test_pictures_against_pictures(capsys, tmp_path):
    """Made images are a folder without labels, of another size and in colour."""
    examples = digits()
    for index in range(40):
        image = noised(examples.image(index), 60, seed=index)
        image = image.repeat_interleave(2, 1).repeat_interleave(2, 2).repeat(3, 1, 1)
        write_image(image, tmp_path / f"{index:02}.png")
    arguments = ["eval", "digit-features", "starter:digits", "--against", str(tmp_path)]
    reported = facts(capsys, *arguments, "--seed", "3")
    distance = reported["against"]
    assert (distance["real_count"], distance["made_count"]) == (200, 40)
    assert (
        distance["frechet"] > 0.1 and 0 <= distance["recall"] <= 1 and reported["accuracy"] > 0.98
    )
    same = facts(capsys, "eval", "digit-features", "starter:digits", "--against", "starter:digits")
    assert same["against"]["frechet"] == pytest.approx(0, abs=1e-5)
    assert same["against"]["precision"] == same["against"]["recall"] == 1


def test_what_the_verb_cannot_use(capsys, tmp_path):
    assert "--steps: no such option" in complains(
        capsys, "eval", "digit-features", "starter:digits", "--steps", "4"
    )
    assert "name a folder" in complains(capsys, "eval", "digit-features")
    write_image(torch.zeros(1, 28, 28, dtype=torch.uint8), tmp_path / "a.png")
    assert "--label-column" in complains(capsys, "eval", "digit-features", tmp_path)
    reported = complains(
        capsys, "eval", "digit-features", "starter:digits", "--label-column", "digit"
    )
    assert "digit" in reported


def test_random_choices_follow_the_seed(capsys):
    def distance(seed):
        arguments = ["eval", "digit-features", "starter:digits", "--most", "40", "--seed", seed]
        return facts(capsys, *arguments, "--against", "starter:digits")["against"]

    first = distance("1")
    assert first == distance("1") != distance("2")
    assert first["real_count"] == first["made_count"] == 40
    assert first["frechet"] > 1  # two draws, not one against itself

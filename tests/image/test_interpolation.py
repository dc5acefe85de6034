"""Interpolation between prompts and seeds; prompts of models with classes."""

import pytest
import torch
from commands import does
from PIL import Image

import multidiff as md
from multidiff.image.data.labels import class_complaint, class_number
from multidiff.image.interpolation import BlendedDenoiser, interpolate, labelled_frames
from multidiff.image.variations import slerp
from multidiff.utils.errors import InputError

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
BIRDS = ("black bird", "bird", "cat")


def test_noise_between_two_draws_has_their_variance():
    rng = torch.Generator().manual_seed(0)
    first, second = (torch.randn(1, 1, 200, 200, generator=rng) for _ in range(2))
    weight = torch.tensor([0.0, 0.3, 0.5, 1.0])
    found = slerp(first, second, weight)
    assert torch.equal(found[0], first[0]) and torch.equal(found[3], second[0])
    assert found.flatten(1).var(dim=1) == pytest.approx(torch.ones(4), abs=0.03)


def test_predictions_of_two_conditions_are_mixed():
    def network(xt, level, condition):
        return xt * condition[:, None]

    one, two = torch.tensor([2.0, 2.0]), torch.tensor([6.0, 6.0])
    blended = BlendedDenoiser(network, two, torch.tensor([0.25, 1.0]))
    found = blended(torch.ones(2, 1), None, one)  # pyright: ignore[reportArgumentType]
    assert found.flatten().tolist() == [3.0, 6.0]


@pytest.fixture(scope="module")
def digits():
    return md.load("digits")


@pytest.mark.parametrize("ends", [[("3", 0), ("8", 0)], [("3", 0), ("3", 5)], [("3", 1), ("8", 2)]])
def test_the_ends_are_the_images_of_their_prompts_and_seeds(digits, ends):
    made = interpolate(digits, ends, 3, steps=4)
    prompts, seeds = zip(*ends, strict=True)
    alone = digits.generate(prompts, seed=seeds, steps=4)
    for frame, image in zip((made[0], made[-1]), alone, strict=True):
        assert int((frame.int() - image.int()).abs().max()) <= 1
    assert not torch.equal(made[1], made[0]) and not torch.equal(made[1], made[2])


def test_the_command_writes_frames_a_strip_and_a_gif(capsys, tmp_path):
    words = f"sample digits --prompt 3 --prompt 8 --steps 2 --interpolate 3 -o {tmp_path}".split()
    does(capsys, *words)
    assert sorted(path.suffix for path in tmp_path.glob("0*")) == [".png"] * 3
    with (
        Image.open(tmp_path / "grid.png") as strip,
        Image.open(tmp_path / "interpolation.gif") as gif,
    ):
        assert strip.size == (3 * 28 + 2 * 2, 28)
        assert getattr(gif, "n_frames", 1) == 4  # there and back
    does(capsys, *words)
    assert len(list(tmp_path.glob("interpolation*.gif"))) == 2  # nothing is overwritten


def test_consecutive_parts_share_their_end():
    ends = [("a", 0), ("b", 0), ("b", 1)]
    texts = [text for text, _ in labelled_frames(ends, 3)]
    assert texts == ["a", "a to b 0.50", "b", "b to seed 1 0.50", "b"]


@pytest.mark.parametrize(("ends", "frames"), [([("3", 0)], 4), ([("3", 0), ("4", 0)], 1)])
def test_one_end_or_one_frame_is_an_error(digits, ends, frames):
    with pytest.raises(InputError, match="needs 2 or more frames"):
        interpolate(digits, ends, frames)


@pytest.mark.parametrize(
    ("prompt", "classes", "number"),
    [
        ("", DIGITS, -1),
        ("seven", DIGITS, 7),
        ("7", DIGITS, 7),
        ("A handwritten Seven", DIGITS, 7),
        ("seven", tuple("0123456789"), 7),
        ("a 7", tuple("0123456789"), 7),
        ("a black bird", BIRDS, 0),
        ("the bird", BIRDS, 1),
    ],
)
def test_a_prompt_names_a_class(prompt, classes, number):
    assert class_number(prompt, classes) == number


def test_several_classes_and_none_are_errors_and_other_words_are_named():
    with pytest.raises(InputError, match="names three and seven"):
        class_number("7 or three", DIGITS)
    with pytest.raises(InputError, match="no class 'eleven'"):
        class_number("eleven", DIGITS)
    assert class_complaint("seven", DIGITS) is None
    assert "does not know a, handwritten, which" in str(class_complaint("a handwritten 7", DIGITS))

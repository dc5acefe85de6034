"""Bytes to numbers and back; padding, resizing, and many images on one sheet."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from multidiff.image.data.image_files import (
    crop_to,
    from_unit,
    grid,
    pad_to_multiple,
    resized,
    to_unit,
)
from multidiff.utils.errors import InputError

# ------------------------------------------------------------------------ unit and bytes


def test_all_bytes_survive_as_numbers():
    every = torch.arange(256, dtype=torch.uint8)
    unit = to_unit(every)
    assert unit.min() == -1 and unit.max() == 1
    torch.testing.assert_close(unit, torch.linspace(-1, 1, 256))
    assert torch.equal(from_unit(unit), every)
    nudged = unit + torch.linspace(-0.9, 0.9, 256) / 255
    assert torch.equal(from_unit(nudged), every)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_precisions_of_numbers(dtype):
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(from_unit(to_unit(every).to(dtype)), every)


def test_what_lies_beyond_is_clipped_and_no_numbers_are_refused():
    assert from_unit(torch.tensor([-9.0, -1.01, 1.01, 1e9])).tolist() == [0, 0, 255, 255]
    for value in (torch.nan, torch.inf, -torch.inf):
        with pytest.raises(InputError, match="not finite"):
            from_unit(torch.tensor([0.0, value]))


# ------------------------------------------------------------------------------- sizes


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), multiple=st.integers(1, 16))
def test_padding_is_undone(height, width, multiple):
    image = torch.rand(2, 3, height, width)
    padded = pad_to_multiple(image, multiple, -7.0)
    for given_length, length in zip((height, width), padded.shape[2:], strict=True):
        assert length % multiple == 0 and 0 <= length - given_length < multiple
    assert torch.equal(crop_to(padded, width, height), image)
    assert int((padded == -7).sum()) == padded.numel() - image.numel()


def test_an_odd_pixel_goes_right_and_below():
    padded = pad_to_multiple(torch.ones(1, 1, 5, 5), 8)[0, 0]
    assert padded.sum(0).tolist() == [0, 5, 5, 5, 5, 5, 0, 0]
    assert padded.sum(1).tolist() == [0, 5, 5, 5, 5, 5, 0, 0]
    with pytest.raises(ValueError, match="cannot be cropped"):
        crop_to(torch.ones(1, 1, 5, 5), 6, 5)


@pytest.mark.parametrize(("width", "height"), [(10, 10), (30, 10), (8, 16), (64, 64)])
def test_resizing_is_a_cut_in_the_middle_and_lanczos(width, height):
    image = torch.randint(0, 256, (3, 24, 40), dtype=torch.uint8)
    drawn = Image.fromarray(image.permute(1, 2, 0).numpy())
    wanted = ImageOps.fit(drawn, (width, height), Image.Resampling.LANCZOS)
    found = resized(image, width, height)
    assert found.shape == (3, height, width)
    np.testing.assert_array_equal(found.permute(1, 2, 0).numpy(), np.array(wanted))
    grey = resized(image[:1], width, height)
    assert grey.shape == (1, height, width) and torch.equal(grey[0], found[0])


def test_the_same_size_stays_as_it_is():
    image = torch.randint(0, 256, (1, 9, 4), dtype=torch.uint8)
    assert torch.equal(resized(image, 4, 9), image)


def test_a_fine_pattern_does_not_fold_back():
    board = (torch.arange(64)[:, None] + torch.arange(64)) % 2 * 255
    found = resized(board.to(torch.uint8)[None], 24, 24)
    assert int((found.int() - 127).abs().max()) <= 12


def test_a_grid_in_reading_order():
    sheet = grid(torch.arange(1, 6, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 1, 2, 3))
    wanted = np.full((6, 13), 255)
    for number in range(5):
        top, left = number // 3 * 4, number % 3 * 5
        wanted[top : top + 2, left : left + 3] = number + 1
    np.testing.assert_array_equal(sheet[0], wanted)


def test_grids_of_chosen_columns():
    one = torch.zeros(4, 3, 2, 2, dtype=torch.uint8)
    assert grid(one, columns=4, gap=0).shape == (3, 2, 8)
    assert grid(one, columns=9, gap=1).shape == (3, 2, 11)
    assert grid(one, columns=1).shape == (3, 14, 2)
    assert int(grid(one[:3], gap=0, background=9)[:, 2:, 2:].min()) == 9
    for wrong in ({"columns": 0}, {"images": one[:0]}):
        with pytest.raises(ValueError, match="nothing to show"):
            grid(**{"images": one, **wrong})

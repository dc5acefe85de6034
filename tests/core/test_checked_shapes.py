"""Signatures are checked in tests: the first calls of a function in each, and every tenth."""

import jaxtyping
import pytest
import shapes
import torch

from multidiff.core.gaussian.flow import shift_times


def refused_of(count):
    refused = 0
    for _ in range(count):
        try:
            shift_times(torch.zeros(2, 2), 2.0)
        except jaxtyping.TypeCheckError:
            refused += 1
    return refused


@pytest.mark.parametrize("again", [False, True])
def test_a_wrong_shape_is_refused_at_first_and_then_at_times(again):
    """In the second test as in the first, whatever was called in it."""
    assert refused_of(60) == 20 + 4
    assert shift_times(torch.zeros(2), 2.0).shape == (2,)


def test_a_loop_may_leave_the_checks_out():
    with shapes.unchecked():
        assert refused_of(5) == 0

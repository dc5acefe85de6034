"""The benchmarks' own arithmetic, and that each part runs."""

import time

import pytest

from benchmarks.__main__ import PARTS
from benchmarks.timing import in_alternation, rows_of


def test_every_function_is_called_equally_often():
    calls = []
    seconds = in_alternation({name: lambda n=name: calls.append(n) for name in "ab"}, rounds=4)
    assert calls == list("ab" + "ab" + "ba" + "ab" + "ba")
    assert all(len(taken) == 4 for taken in seconds.values())


def test_a_slower_function_has_a_larger_ratio():
    seconds = in_alternation({"fast": lambda: None, "slow": lambda: time.sleep(0.01)}, rounds=3)
    fast, slow = rows_of("part", "case", seconds, "fast")
    assert fast.ratio == 1 and slow.ratio > 2 and slow.median > 0.009


def test_ratios_are_of_the_same_round():
    fast, slow = rows_of("p", "c", {"x": [1.0, 2.0, 30.0], "y": [2.0, 4.0, 60.0]}, "x")
    assert fast.median == 2 and (slow.ratio, slow.lowest, slow.highest) == (2, 2, 60)
    absent = rows_of("p", "c", {"x": [1.0], "y": []}, "x")[1]
    assert absent.median is None and "not installed" in absent.cells()


@pytest.mark.slow
@pytest.mark.parametrize("part", ["reverse-loop", "startup"])
def test_a_part_runs(part):
    import importlib

    rows = importlib.import_module(f"benchmarks.{PARTS[part]}").measure(1, 1)
    assert rows and all(row.median is None or row.median > 0 for row in rows)

"""A slice of ``fuzz.py``, the same in each run; the command itself draws many more."""

import logging

import fuzz
import pytest

# Seconds of imports, and no more to be found in a few cases.
SLOW = ("parquet", "tables_of_pictures", "commands", "clip_tokenizers")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in fuzz.READERS if name not in SLOW])
def test_readers_read_or_refuse_in_a_line(name, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # They name files by bytes that are not UTF-8, which pytest's processes cannot pass on.
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    counts, faults = fuzz.fuzz(seed=20, count=10, names=[name])
    assert not faults, "\n".join(ascii(told) for *_, told in faults)
    assert counts[name]["refused"]

"""A slice of ``fuzz.py``, the same in each run; the command itself draws many more."""

import io
import logging
from contextlib import redirect_stderr, redirect_stdout

import fuzz
import pytest

# Seconds of imports, and no more to be found in a few cases.
SLOW = ("parquet", "tables_of_pictures", "commands", "clip_tokenizers")


@pytest.fixture
def quiet():
    """Drop what names files by bytes that are not UTF-8: pytest's processes cannot pass it on."""
    logging.disable(logging.CRITICAL)
    with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
        yield
    logging.disable(logging.NOTSET)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in fuzz.READERS if name not in SLOW])
def test_readers_read_or_refuse_in_a_line(name, monkeypatch, quiet):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    counts, faults = fuzz.fuzz(seed=20, count=10, names=[name])
    assert not faults, "\n".join(ascii(reported) for *_, reported in faults)
    assert counts[name]["refused"]

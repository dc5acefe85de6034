"""The server's process under load, and its ends: SIGTERM, SIGKILL, and a start after it."""

import pytest

from benchmarks.serve import measure


@pytest.mark.long  # five processes
def test_under_load():
    rows = measure(1, 1, requests=24, disconnected=10, hostile_count=30, steps=2)
    found = {row.system: row.median for row in rows}
    wanted = {
        "lost": 0,
        "other bits than one by one": 0,
        "still running at the end": 0,
        "not refused in one line": 0,
        "good request after them": 200,
        "answered": 8,
        "exit status": 0,
        "broken": 8,
        "its status": 200,
    }
    assert wanted.items() <= found.items()

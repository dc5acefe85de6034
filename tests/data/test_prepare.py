"""Passes over a source: in parallel, once, taken up after a kill."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from multidiff.data.cache import ENVIRONMENT, cache_dir, use_cache_dir
from multidiff.data.prepare import PARTIAL, Plan, prepare_slice, prepared
from multidiff.utils.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "cache"))
    return tmp_path / "cache"


def make(log, broken, each, piece, writer):
    with open(log, "a") as file:
        file.write(f"{piece}\n")
    for number in range(each * piece, each * piece + each):
        if number in broken:
            writer.fault(f"item-{number}", "is broken")
        else:
            writer.append(number=number, text=f"text {number}")


def plan_of(tmp_path, count=8, broken=(), each=3, **options):
    return Plan(
        "toy",
        {"count": count, "broken": list(broken)},
        {"number": "int64", "text": "text"},
        parts=lambda: range(count),
        make=partial(make, tmp_path / "log", tuple(broken), each),
        source="toy source",
        **options,
    )


def made_parts(tmp_path):
    return sorted(map(int, (tmp_path / "log").read_text().split()))


@pytest.mark.parametrize("workers", [1, 3])
def test_a_table_is_made_once(tmp_path, workers):
    plan = plan_of(tmp_path)
    for _ in range(2):
        table = prepared(plan, workers)
        assert table.fixed("number")[:].tolist() == list(range(24))
        assert table.variable("text")[23] == "text 23"
    assert made_parts(tmp_path) == list(range(8))
    assert prepared(plan_of(tmp_path, count=9)).folder != table.folder


def test_finished_parts_are_kept(tmp_path, cache):
    plan = plan_of(tmp_path)
    assert prepare_slice(plan, 1, 3, workers=1) == 3
    partial_folder = plan.folder.with_name(plan.folder.name + PARTIAL)
    (partial_folder / "000004" / "text").write_text("cut")
    assert len(prepared(plan, workers=1)) == 24
    assert made_parts(tmp_path) == [0, 1, 2, 3, 4, 4, 5, 6, 7]
    assert prepare_slice(plan, 0, 3) == 0


def test_further_columns_follow_from_the_whole(tmp_path):
    def finish(table):
        return {"rest": table.fixed("number")[:] % 5}, {"largest": int(table.fixed("number")[23])}

    table = prepared(plan_of(tmp_path, finish=finish), workers=1)
    assert table.fixed("rest")[8] == 3 and table.info == {"largest": 23}


def test_few_unreadable_items_are_named_and_many_stop(tmp_path, cache, caplog):
    table = prepared(plan_of(tmp_path, 3, [7, 8], each=100), workers=1)
    assert len(table) == 298 and "2 of 300 items cannot be read" in caplog.text
    report = table.folder.with_name(f"{table.folder.name}.faults.txt")
    assert report.read_text() == "item-7\tis broken\nitem-8\tis broken\n"
    with pytest.raises(InputError, match=r"4 of 300 items .* more than 1%, such as item-7 .*txt"):
        prepared(plan_of(tmp_path, 3, [7, 8, 9, 10], each=100), workers=1)


def failing(how, piece, writer):
    if how == "error":
        raise InputError("piece 1: is no piece")
    os.kill(os.getpid(), signal.SIGKILL)


def test_failures_in_other_processes_are_one_line(tmp_path):
    for how, message in (("error", "piece 1: is no piece"), ("kill", "was killed")):
        plan = Plan("toy", {}, {"a": "int8"}, lambda: [0, 1], partial(failing, how))
        with pytest.raises(InputError, match=message):
            prepared(plan, workers=2)


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path, cache):
    cache.write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        prepared(plan_of(tmp_path))


def prepare_slowly(log, delay, results):
    plan = Plan("slow", {}, {"a": "int64"}, lambda: range(4), partial(slow, log, delay))
    results.put(prepared(plan, workers=1).fixed("a")[:].sum())


def slow(log, delay, piece, writer):
    with open(log, "a") as file:
        file.write(f"{piece}\n")
    time.sleep(delay)
    writer.append(a=piece)


def test_of_two_processes_one_prepares(tmp_path):
    context = get_context("fork")
    results = context.SimpleQueue()
    arguments = (tmp_path / "log", 0.05, results)
    both = [context.Process(target=prepare_slowly, args=arguments) for _ in range(2)]
    for process in both:
        process.start()
    assert [results.get() for _ in both] == [6, 6]
    for process in both:
        process.join()
    assert made_parts(tmp_path) == [0, 1, 2, 3]


def test_a_killed_pass_is_taken_up(tmp_path):
    """SIGKILL at different times, with its workers; then the table is that of one pass."""
    code = """
        import sys, time
        from functools import partial
        from pathlib import Path
        sys.path.insert(0, {tests!r})
        from test_prepare import slow
        from multidiff.data.prepare import Plan, prepared
        plan = Plan("slow", {{}}, {{"a": "int64"}}, lambda: range(40), partial(slow, {log!r}, 0.01))
        prepared(plan, workers=2)
    """
    log = tmp_path / "log"
    code = textwrap.dedent(code).format(tests=str(Path(__file__).parent), log=str(log))
    for kept in (3, 20):
        process = subprocess.Popen([sys.executable, "-c", code])
        while not log.exists() or len(log.read_text().split()) < kept:
            time.sleep(0.005)
        process.kill()
        process.wait()
    plan = Plan("slow", {}, {"a": "int64"}, lambda: range(40), partial(slow, log, 0))
    table = prepared(plan, workers=1)
    assert np.array_equal(table.fixed("a")[:], np.arange(40))
    table.verify()
    assert len(made_parts(tmp_path)) < 60


def test_the_cache_folder_is_the_systems(monkeypatch, tmp_path):
    monkeypatch.delenv(ENVIRONMENT)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_dir() == tmp_path / "multidiff"
    use_cache_dir(tmp_path / "other")
    assert cache_dir() == tmp_path / "other"
    monkeypatch.delenv(ENVIRONMENT)

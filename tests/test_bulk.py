"""Bulk work: shards of a list, made by ranks or by Ray, whoever dies meanwhile."""

import json
import os
import signal
import sys
import time
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
from commands import complains, does, facts
from PIL import Image

from multidiff.cli import bulk as bulk_jobs
from multidiff.cli.evaluate import figures_in
from multidiff.cli.main import run
from multidiff.data import bulk
from multidiff.data.engines import by_ranks, by_ray, share_of_rank
from multidiff.data.items import LineItems, RowItems, items_of
from multidiff.utils.errors import InputError

DIGITS = ("sample", "digits", "--steps", "1")


def files_in(folder):
    found = (path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def texts_file(path, texts):
    path.write_text("".join(f"{text}\n" for text in texts), "utf-8")
    return path


@pytest.fixture
def prompts(tmp_path):
    return texts_file(tmp_path / "prompts.txt", [n % 10 for n in range(7)])


def sampled(prompts, out, *words, size=2):
    return (*DIGITS, "--prompt-file", prompts, "-o", out, "--shard-size", size, *words)


def ranks(monkeypatch, rank, count):
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(count))


def test_a_start_makes_what_a_killed_rank_left(capsys, monkeypatch, tmp_path, prompts):
    whole = facts(capsys, *sampled(prompts, tmp_path / "whole"))
    assert whole == {"shards": 4, "items": 7, "made": 4, "missing": 0, "faults": []}
    ranks(monkeypatch, 1, 2)
    assert facts(capsys, *sampled(prompts, tmp_path / "out"))["made"] == 2
    ranks(monkeypatch, 0, 2)
    write = bulk.atomic_write_dir

    def killed(path):
        if path.name == "000002":
            raise KeyboardInterrupt
        return write(path)

    monkeypatch.setattr(bulk, "atomic_write_dir", killed)
    assert run([str(one) for one in sampled(prompts, tmp_path / "out")]) == 130
    monkeypatch.setattr(bulk, "atomic_write_dir", write)
    assert not (tmp_path / "out" / "000002").exists()
    ranks(monkeypatch, 2, 3)
    said = does(capsys, *sampled(prompts, tmp_path / "out"))
    assert "4 shards of 7 items, 1 made now" in said and "left" not in said
    assert files_in(tmp_path / "out") == files_in(tmp_path / "whole")
    assert facts(capsys, *sampled(prompts, tmp_path / "out"))["made"] == 0


def test_an_item_is_the_same_in_every_layout_and_by_itself(capsys, tmp_path, prompts):
    """Up to the rounding of batches of another size."""
    images = {}
    for size in (3, 7):
        does(capsys, *sampled(prompts, tmp_path / str(size), "--seed", 5, size=size))
        for record in bulk.Shards(tmp_path / str(size), 7, size).records():
            place = tmp_path / str(size) / f"{record['item'] // size:06d}" / record["path"]
            assert record["seed"] == 5 + record["item"]
            assert record["prompt"] == str(record["item"])
            images[size, record["item"]] = np.asarray(Image.open(place)).astype(int)
    assert len(images) == 14
    for item in range(7):
        assert abs(images[3, item] - images[7, item]).max() <= 1
    does(capsys, *DIGITS, "--prompt", "4", "--seed", 9, "-o", tmp_path / "alone", "--no-grid")
    (alone,) = (tmp_path / "alone").glob("*.png")
    assert abs(np.asarray(Image.open(alone)).astype(int) - images[3, 4]).max() <= 1


def test_items_may_be_numbers_of_samples(capsys, tmp_path):
    words = (*DIGITS, "--prompt", "3", "-n", 5, "-o", tmp_path / "out", "--shard-size", 2)
    assert facts(capsys, *words)["items"] == 5
    records = bulk.Shards(tmp_path / "out", 5, 2).records()
    assert [record["item"] for record in records] == [0, 1, 2, 3, 4]


def test_other_work_is_refused(capsys, tmp_path, prompts):
    out = tmp_path / "out"
    does(capsys, *sampled(prompts, out))
    before = files_in(out)
    for words in (("--seed", 1), ("--guidance-scale", 2)):
        assert "holds shards of other work" in complains(capsys, *sampled(prompts, out, *words))
    assert "shard_size was 2, is 3" in complains(capsys, *sampled(prompts, out, size=3))
    texts_file(prompts, [3] * 7)
    assert "source was" in complains(capsys, *sampled(prompts, out))
    assert files_in(out) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    assert "holds other files" in complains(capsys, *sampled(prompts, tmp_path / "mine"))


def test_one_unusable_item_is_named_and_two_stop(capsys, caplog, tmp_path):
    out, prompts = tmp_path / "out", tmp_path / "prompts.txt"
    texts_file(prompts, ["1", "", "2"])
    does(capsys, *sampled(prompts, out))
    assert "1 of 3 items cannot be used, such as item 1" in caplog.text
    assert (out / "faults.txt").read_text().startswith("1\t")
    assert [one["item"] for one in bulk.Shards(out, 3, 2).records()] == [0, 2]
    texts_file(prompts, ["1", "", "2", "", "5"])
    line = complains(capsys, *sampled(prompts, tmp_path / "two"))
    assert "2 of 5 items cannot be used, more than 1%" in line
    assert (tmp_path / "two" / "faults.txt").read_text().count("\n") == 2
    assert not list((tmp_path / "two").glob("0*"))  # made again by the next start


def test_a_prompt_that_a_model_cannot_read_costs_no_other(capsys, tmp_path):
    meanings = texts_file(tmp_path / "meanings.txt", ["food[Italian]", "food[", "food[French]"])
    words = (
        "sample",
        "restaurant",
        "--steps",
        1,
        "--prompt-file",
        meanings,
        "-o",
        tmp_path / "out",
    )
    does(capsys, *words, "--shard-size", 3)
    assert [one["item"] for one in bulk.Shards(tmp_path / "out", 3, 3).records()] == [0, 2]


def test_sounds_are_those_of_the_command_alone(capsys, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("a", "deep/b"):
        soundfile.write(tmp_path / "in" / f"{name}.wav", 0.1 * rng.standard_normal(4000), 22050)
    rows = [{"bytes": path.read_bytes(), "path": path.name} for path in
            sorted((tmp_path / "in").rglob("*.wav"))]  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.table({"audio": rows}), tmp_path / "in.parquet")
    words = ("--steps", 1, "--seed", 3)
    does(capsys, "synth", tmp_path / "in", "-o", tmp_path / "usual", *words)
    does(capsys, "synth", tmp_path / "in", "-o", tmp_path / "bulk", *words, "--shard-size", 1)
    table = ("synth", tmp_path / "in.parquet", "-o", tmp_path / "table", "--column", "audio")
    does(capsys, *table, *words, "--shard-size", 2)
    for number, name in enumerate(("a", "b")):
        usual = (tmp_path / "usual" / f"{name}.wav").read_bytes()
        place = tmp_path / "bulk" / f"{number:06d}" / f"{number:09d}-{name}.wav"
        assert place.read_bytes() == usual
        (listed,) = (tmp_path / "table" / "000000").glob(f"{number:09d}-*{name}.wav")
        assert listed.read_bytes() == usual


def test_an_evaluation_is_the_mean_over_items(capsys, tmp_path):
    texts = ("the mill is an italian pub .", "the mill is a french pub .", "blue spice is a pub .")
    meaning = "name[The Mill], eatType[pub], food[Italian]"
    rows = [json.dumps({"text": text, "meaning": meaning}) for text in texts]
    words = ("eval", "restaurant-control", "--meaning-column", "meaning", "--held-out-every", 0)
    listed = texts_file(tmp_path / "texts.jsonl", rows)
    found = facts(capsys, *words, listed, "-o", tmp_path / "out", "--shard-size", 2)
    two, one = (record["figures"] for record in bulk.Shards(tmp_path / "out", 3, 2).records())
    alone = facts(capsys, *words, texts_file(tmp_path / "last.jsonl", rows[2:]), "--seed", 2)
    names = [name for name, _ in figures_in(one)]
    assert names and one == {name: alone[name] for name in one}
    for name, first in figures_in(two):
        mean = (2 * first + dict(figures_in(one))[name]) / 3
        assert found["figures"][name] == pytest.approx(mean)
    assert json.loads((tmp_path / "out" / "figures.json").read_text()) == found["figures"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--engine", "ray"), "--engine ray: goes with --shard-size"),
        (("--column", "a"), "--column a: goes with --shard-size"),
        (("--shard-size", 2), "needs one list"),
        (("--prompt", "-", "--shard-size", 2), "--prompt -: standard input does not go with"),
        (("--prompt-file", "gone.txt", "--shard-size", 2), "gone.txt: no such file"),
        (("--prompt-file", "a.csv", "--shard-size", 2), "a.csv: is no list"),
        (("--prompt-file", "a.txt", "--shard-size", 2, "--column", "b"), "has no columns"),
        (("--prompt-file", "a.parquet", "--shard-size", 2), "no column 'text'; name one"),
        (("--prompt-file", "empty.txt", "--shard-size", 2), "holds no items"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(capsys, monkeypatch, tmp_path, words, line):
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "a.txt"):
        texts_file(tmp_path / name, ["1", "2"])
    texts_file(tmp_path / "empty.txt", [])
    pyarrow.parquet.write_table(pyarrow.table({"b": ["1"]}), tmp_path / "a.parquet")
    extra = ("--prompt", "1", "--prompt-file", "a.txt") if line == "needs one list" else ()
    assert line in complains(capsys, *DIGITS, "-o", "out", *words, *extra)
    assert not (tmp_path / "out").exists()


def test_the_list_of_an_evaluation_may_be_named_as_an_option_is(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "4").mkdir()
    words = ["--steps", "4", "4", "--held-out-every=4"]
    job = bulk_jobs.eval_job(bulk_jobs.BulkJob("eval", "speech", tmp_path, 2), words)
    assert str(job.source) == "4" and job.words == ("--steps", "4", "--held-out-every=4")


def test_an_option_that_each_shard_would_write_to_is_refused(capsys, tmp_path):
    words = ("eval", "speech", tmp_path, "-o", tmp_path / "out", "--shard-size", 2)
    assert "--per-item: does not go with" in complains(capsys, *words, "--per-item", tmp_path)


def test_ranks_without_shards_are_refused(capsys, monkeypatch, tmp_path):
    ranks(monkeypatch, 0, 2)
    assert "add --shard-size" in complains(capsys, *DIGITS, "--prompt", "1", "-o", tmp_path)


def test_ray_that_is_missing_is_one_line(capsys, monkeypatch, tmp_path, prompts):
    monkeypatch.setitem(sys.modules, "ray", None)
    line = complains(capsys, *sampled(prompts, tmp_path / "out", "--engine", "ray"))
    assert "--engine ray needs ray" in line and "multidiff[ray]" in line
    assert not list((tmp_path / "out").glob("0*"))


def test_every_number_has_one_rank():
    for count in (1, 2, 5):
        shares = [share_of_rank(range(11), (rank, count)) for rank in range(count)]
        assert sorted(chain(*shares)) == list(range(11))


def test_lists_are_read_by_ranges(tmp_path):
    texts = [f"número {n}" for n in range(600)]
    lines = LineItems(texts_file(tmp_path / "a.txt", texts))
    objects = LineItems(
        texts_file(tmp_path / "a.jsonl", [json.dumps({"c": one}) for one in texts]), "c"
    )
    path = tmp_path / "tables"
    path.mkdir()
    for number in range(2):
        table = pyarrow.table({"c": texts[300 * number : 300 * number + 300], "d": range(300)})
        pyarrow.parquet.write_table(table, path / f"{number}.parquet", row_group_size=70)
    for items in (lines, objects, items_of(path, "c")):
        assert len(items) == 600
        for some in (range(0, 3), range(255, 258), range(290, 520), range(599, 600)):
            assert items.texts(some) == [texts[n] for n in some]
            (tmp_path / "part").mkdir(exist_ok=True)
            part = items_of(items.part(some, tmp_path / "part"), None if items is lines else "c")
            assert part.texts(range(len(part))) == [texts[n] for n in some]
    assert isinstance(items_of(path, "c"), RowItems)
    (fault,) = LineItems(texts_file(tmp_path / "b.jsonl", ["{}"]), "c").texts(range(1))
    assert isinstance(fault, InputError) and "column 'c' has no text" in str(fault)


def a_job(folder, number):
    """Note the process of each attempt; the second job ends its first worker."""
    tries = folder / f"{number}.tries"
    with tries.open("a") as file:
        file.write(f"{os.getpid()}\n")
    if number == 1 and tries.read_text().count("\n") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    (folder / f"{number}.done").write_text(str(number))


def refused(number):
    raise InputError(f"item {number}: is wrong")


def test_ray_moves_the_work_of_a_lost_worker(tmp_path, monkeypatch):
    # Workers import this module, where the jobs are.
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install multidiff[ray]")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else they wait for all other work
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=1 << 27)
    try:
        jobs = {number: partial(a_job, tmp_path, number) for number in range(6)}
        assert sorted(by_ray(jobs, workers=2)) == list(range(6))
        tries = [(tmp_path / f"{n}.tries").read_text().splitlines() for n in range(6)]
        assert len(tries[1]) == 2 and len(set(tries[1])) == 2
        with pytest.raises(InputError, match="item 3: is wrong"):
            list(by_ray({3: partial(refused, 3)}))
    finally:
        ray.shutdown()


def test_ranks_run_their_share(monkeypatch, tmp_path):
    ranks(monkeypatch, 1, 3)
    jobs = {number: partial(a_job, tmp_path, number) for number in (0, 2, 4, 5, 7)}
    assert list(by_ranks(jobs)) == [4, 7]

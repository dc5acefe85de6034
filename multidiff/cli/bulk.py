"""Bulk work of the commands ``synth``, ``sample`` and ``eval``: shards of a list, by an engine.

A worker, whether a launcher's process or one of a Ray cluster, makes all it needs (model, options,
list) from a :class:`BulkJob`, once, and then any of its shards.
"""

from __future__ import annotations

import inspect
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, get_type_hints

from multidiff.audio.synthesis import INPUTS
from multidiff.cli.model_help import TAKEN, verb
from multidiff.config.options import FROM_FILE, options_alone, options_of, read_options
from multidiff.data.bulk import Faults, Make, Records, Shards, in_halves
from multidiff.data.engines import Engine, by_ranks, by_ray
from multidiff.data.items import FileItems, LineItems, RowItems, items_of
from multidiff.image.data.image_files import EXTENSIONS
from multidiff.models.loading import home_of, load, load_outline, shipped
from multidiff.utils.devices import checked_device
from multidiff.utils.errors import InputError
from multidiff.utils.files import atomic_write, resolve_path
from multidiff.utils.fingerprint import of_path
from multidiff.utils.lines import STANDARD_INPUT
from multidiff.utils.report import Report, work_progress

logger = logging.getLogger(__name__)

FIGURES = "figures.json"
# Files of a folder that are items.
ITEM_ENDINGS = (*INPUTS, *EXTENSIONS)
# Facts that differ from run to run.
TIMES = {"wall_seconds", "first_seconds", "seconds_per_image", "real_time_factor"}


@dataclass(frozen=True)
class BulkJob:
    """A description of work from which any process makes any shard; it pickles.

    Attributes:
        command: ``synth``, ``sample`` or ``eval``.
        model: name of the model.
        out: folder of the shards.
        size: number of items in a shard.
        column: column of the list.
        num: number of samples of each item, or of items that are numbers.
        seed: random seed; see :data:`multidiff.cli.arguments.Seed`.
        device: device to compute on.
        source: list of the items; None where they are numbers alone.
        takes: parameter of the command's function that receives the items.
        words: the model's own options, as the command line gives them.
        prompts: prompts of each item, where items are numbers.
    """

    command: str
    model: str
    out: Path | None
    size: int
    column: str | None = None
    num: int = 1
    seed: int = 0
    device: str = "cpu"
    source: Path | None = None
    takes: str = "prompts"
    words: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()

    @property
    def shards(self) -> Shards:
        """Return the shards of the list."""
        items = opened_items(self)
        if self.out is None:
            raise InputError("-o OUT: name a folder for the shards")
        return Shards(self.out, self.num if items is None else len(items), self.size)

    def description(self) -> dict[str, Any]:
        """Return what identifies the work, wherever its files lie."""
        items = opened_items(self)
        asked = {k: v for k, v in asdict(self).items() if k not in ("out", "size", "device")}
        asked["source"] = None if items is None else items.fingerprint()
        return {**asked, "model": of_path(home_of(self.model))}

    def with_whole_paths(self) -> BulkJob:
        """Return the same job for processes that work in another folder."""
        is_path = self.model not in shipped() and Path(self.model).exists()
        return replace(
            self,
            model=str(Path(self.model).resolve()) if is_path else self.model,
            out=None if self.out is None else self.out.resolve(),
            source=None if self.source is None else self.source.resolve(),
        )

    def make(self, number: int) -> None:
        """Make a shard; the model stays in the process for the next."""
        self.shards.make(number, _maker(self))


@lru_cache(maxsize=1)
def opened_items(job: BulkJob) -> LineItems | RowItems | FileItems | None:
    """Return the items of a job, opened once in a process."""
    if job.source is None:
        return None
    return items_of(job.source, job.column, ITEM_ENDINGS)


def synth_job(
    job: BulkJob, words: Sequence[str], texts: Sequence[str], text_files: Sequence[str]
) -> BulkJob:
    """Return a job of synthesis with its list: a list of texts, or of recordings and mels.

    Args:
        job: the job without it.
        words: inputs and the model's own options.
        texts: values of ``--text``.
        text_files: values of ``--text-file``.

    Raises:
        InputError: if there is not one list, or an option does not go with it.
    """
    run = verb(load_outline(job.model), "synth")
    files: list[str] = []
    read_options(words, run, TAKEN["synth"], load_outline, positionals=files)
    takes = "texts" if text_files else "inputs"
    if takes not in inspect.signature(run).parameters:
        raise InputError(f"--model {job.model}: reads {'no texts' if text_files else 'only texts'}")
    _refuse("--save-mel", words)
    left = options_alone(words, options_of(run, TAKEN["synth"]))
    return _with_list(job, takes, [*files, *text_files], texts, left)


def sample_job(
    job: BulkJob, words: Sequence[str], prompts: Sequence[str], prompt_files: Sequence[str]
) -> BulkJob:
    """Return a job of samples with its list: of prompts, or of another option's texts.

    Without a list, the items are the numbers of the samples.

    Args:
        job: the job without it.
        words: the model's own options.
        prompts: values of ``--prompt``.
        prompt_files: values of ``--prompt-file``.

    Raises:
        InputError: if there are several lists, or one from standard input.
    """
    model = load_outline(job.model)
    run = verb(model, "sample")
    options = options_of(run, TAKEN["sample"], model)
    lists = [("prompts", file) for file in prompt_files]
    left, kept = list(words), []
    while left:
        option, equals, value = (word := left.pop(0)).removeprefix("--").partition("=")
        if word.startswith("--") and option in options.from_files and (equals or left):
            name = options.flags[option.removesuffix(FROM_FILE)]
            lists.append((name, value if equals else left.pop(0)))
        else:
            kept.append(word)
    if STANDARD_INPUT in prompts:  # as a list, of which each process reads its part
        raise InputError(
            "--prompt -: standard input does not go with --shard-size; name a file by --prompt-file"
        )
    if not lists:
        return replace(job, prompts=tuple(prompts), words=tuple(kept))
    if get_type_hints(run)["seed"] is int:
        raise InputError(
            f"--shard-size: a {type(model).__name__} samples no list in shards, only -n samples"
        )
    return _with_list(job, lists[0][0], [file for _, file in lists], prompts, kept)


def eval_job(job: BulkJob, words: Sequence[str]) -> BulkJob:
    """Return a job of an evaluation with its data.

    Args:
        job: the job without them.
        words: data and the model's own options.

    Raises:
        InputError: if there is not one source of data.
    """
    files: list[str] = []
    run = verb(load_outline(job.model), "eval")
    read_options(words, run, TAKEN["eval"], load_outline, positionals=files)
    _refuse("--per-item", words)
    left = options_alone(words, options_of(run, TAKEN["eval"]))
    return _with_list(job, "data", files, [], left)


def _refuse(option: str, words: Sequence[str]) -> None:
    """Refuse an option that names one place, where each shard would replace another's files."""
    if any(word.partition("=")[0] == option for word in words):
        raise InputError(f"{option}: does not go with --shard-size; remove either")


def _with_list(
    job: BulkJob, takes: str, files: Sequence[str], others: Sequence[str], words: Sequence[str]
) -> BulkJob:
    if len(files) != 1 or others or files[0] == STANDARD_INPUT:
        raise InputError(
            "--shard-size: bulk work needs one list: a folder, or a .parquet, .jsonl or .txt file"
        )
    return replace(job, source=resolve_path(files[0]), takes=takes, words=tuple(words))


def run_bulk(job: BulkJob, engine: Engine) -> Report:
    """Make the shards of a job that are missing, as far as they are this process's.

    Args:
        job: the job.
        engine: ``ranks`` for the processes of a launcher (or this one alone), or ``ray``.

    Raises:
        InputError: if an input is wrong, or more than 1 % of the items cannot be used.
    """
    shards = job.shards
    shards.begin(job.description())
    job = job.with_whole_paths()
    todo = shards.missing()
    jobs = {number: partial(job.make, number) for number in todo}
    made = 0
    with work_progress(f"{job.out}: {job.command}", shards.count) as advance:
        run = by_ray(jobs, job.device.startswith("cuda")) if engine == "ray" else by_ranks(jobs)
        for number in run:
            made += 1
            advance(len(shards.items(number)))
    missing = len(shards.missing())
    facts: dict[str, Any] = {
        "shards": len(shards),
        "items": shards.count,
        "made": made,
        "missing": missing,
    }
    lines = [f"{job.out}: {len(shards)} shards of {shards.count:,} items, {made} made now"]
    if missing:
        lines.append(f"{missing} shards are left to other ranks, or to a further start")
        return Report(lines, facts)
    unusable = shards.check_faults()
    for line in unusable:
        logger.warning("%s: %s", job.out, line)
    if job.command == "eval":
        facts["figures"] = figures = _joined(shards)
        lines += [f"{name}: {value:.6g}" for name, value in figures.items()]
    return Report(lines, facts)


@lru_cache(maxsize=1)
def _maker(job: BulkJob) -> Make:
    """Return the function that makes shards, with the model loaded."""
    ready = load(job.model, checked_device(job.device))
    run = verb(ready, job.command)
    options = read_options(
        job.words, run, TAKEN[job.command], lambda name: load(name, job.device),
        getattr(ready, "companions", {}) if job.command == "sample" else {}, ready,
    )  # fmt: skip
    if "no_grid" in inspect.signature(run).parameters:
        options["no_grid"] = True
    make = {"synth": _synthesized, "sample": _sampled, "eval": _evaluated}[job.command]
    return partial(make, job, partial(run, ready, **options), ready)


def _synthesized(
    job: BulkJob, run: Callable[..., Report], model: Any, some: range, folder: Path
) -> tuple[Records, Faults]:
    """Make a sound of each recording, mel or text, with the seed of the command."""
    items = opened_items(job)
    assert items is not None
    with tempfile.TemporaryDirectory() as spool:
        if job.takes == "texts":
            given: Sequence[Any] = items.texts(some)
        else:
            given = items.files(some, Path(spool))
        records, faults = _unreadable(some, given)
        for number, item in zip(some, given, strict=True):
            if isinstance(item, InputError):
                continue
            stem = "" if isinstance(item, str) else f"-{item.stem}"
            report = run([item], folder / f"{number:09d}{stem}.wav", seed=job.seed)
            faults += [(number, fault) for fault in report.faults]
            named = {} if isinstance(item, str) else {"input": item.name}
            records += [_record(number, one | named, folder) for one in report.facts["outputs"]]
    return records, sorted(faults)


def _sampled(
    job: BulkJob, run: Callable[..., Report], model: Any, some: range, folder: Path
) -> tuple[Records, Faults]:
    """Sample for each item, with seeds that follow from its number."""
    items, out = opened_items(job), folder if getattr(model, "writes_files", False) else None
    if items is None:
        report = run(num=len(some), prompts=job.prompts, out=out, seed=job.seed + some.start)
        found = _results(report)
        return [_record(one["seed"] - job.seed, one, folder) for one in found], []
    texts = dict(zip(some, items.texts(some), strict=True))
    _, faults = _unreadable(some, [*texts.values()])

    def make(numbers: Sequence[int]) -> Records:
        given = {"prompts": (), job.takes: [str(texts[number]) for number in numbers]}
        seeds = [job.seed + number * job.num for number in numbers]
        with _nothing_left(folder):
            report = run(num=job.num, out=out, seed=seeds, **given)
        found = _results(report)
        if len(found) != job.num * len(numbers):
            raise InputError(
                f"{len(found)} results of {len(numbers)} items: an option does not go with "
                "--shard-size; remove it"
            )
        return [_record(numbers[n // job.num], one, folder) for n, one in enumerate(found)]

    records, others = in_halves([n for n in some if isinstance(texts[n], str)], make)
    return records, sorted(faults + others)


@contextmanager
def _nothing_left(folder: Path) -> Iterator[None]:
    """Remove what the block wrote into a folder if an input is wrong: others are made again."""
    before = set(folder.iterdir())
    try:
        yield
    except InputError:
        for path in set(folder.iterdir()) - before:
            path.unlink()
        raise


def _results(report: Report) -> list[dict[str, Any]]:
    """Return what a report says of each result; joint models call them samples."""
    return report.facts["outputs" if "outputs" in report.facts else "samples"]


def _evaluated(
    job: BulkJob, run: Callable[..., Report], model: Any, some: range, folder: Path
) -> tuple[Records, Faults]:
    """Measure the model on the items of a shard alone."""
    items = opened_items(job)
    assert items is not None
    with tempfile.TemporaryDirectory() as spool:
        data = str(items.part(some, Path(spool)))
        report = run(data, home_of(job.model), seed=job.seed + some.start)
    if report.faults:
        raise InputError(*report.faults)
    figures = {key: one for key, one in _timeless(report.facts).items() if one != data}
    return [{"first": some.start, "items": len(some), "figures": figures}], []


def _unreadable(some: range, given: Sequence[Any]) -> tuple[Records, Faults]:
    pairs = zip(some, given, strict=True)
    return [], [(number, str(item)) for number, item in pairs if isinstance(item, InputError)]


def _record(number: int, facts: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return what the list of a shard says of a result, with names relative to its folder."""
    before = f"{folder}/"
    named = {
        key: value.removeprefix(before) if isinstance(value, str) else value
        for key, value in facts.items()
        if key not in TIMES
    }
    return {"item": number, **named}


def _timeless(facts: Any) -> Any:
    if isinstance(facts, dict):
        return {key: _timeless(one) for key, one in facts.items() if key not in TIMES}
    return [_timeless(one) for one in facts] if isinstance(facts, list) else facts


def _joined(shards: Shards) -> dict[str, float]:
    """Return the mean of each figure over the shards, by their numbers of items; write it too."""
    from multidiff.cli.evaluate import figures_in

    rows: dict[str, list[tuple[int, float]]] = {}
    for record in shards.records():
        for name, value in figures_in(record["figures"]):
            rows.setdefault(name, []).append((record["items"], value))
    means = {
        name: sum(weight * value for weight, value in found) / sum(weight for weight, _ in found)
        for name, found in rows.items()
    }
    with atomic_write(shards.out / FIGURES) as path:
        path.write_text(json.dumps(means, indent=1) + "\n", "utf-8")
    return means

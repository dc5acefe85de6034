"""Two engines that walk numbered jobs on many machines: a launcher's ranks, and Ray.

Jobs are shards of fixed content whose results lie in files, so none of the two keeps a state:
whatever was finished is skipped by the next start, with any engine and any number of processes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

from multidiff.utils.devices import process_ratio
from multidiff.utils.errors import InputError
from multidiff.utils.packages import needs

Engine = Literal["ranks", "ray"]
Job = Callable[[], None]
RAY_EXTRA = 'pip install "multidiff[ray]"'
# Several workers may share a core, so that none waits for a core that another task holds.
CORES_OF_A_WORKER = 0.5
# A shard that ends its worker so often, by its memory for instance, would end every other.
RETRIES = 3


def share_of_rank(numbers: Iterable[int], ratio: tuple[int, int]) -> list[int]:
    """Return the numbers that belong to a rank: a number's remainder by their count is its rank.

    Args:
        numbers: numbers of jobs.
        ratio: rank of this process, and number of processes.
    """
    rank, count = ratio
    return [number for number in numbers if number % count == rank]


def by_ranks(jobs: Mapping[int, Job]) -> Iterator[int]:
    """Run this process's share of the jobs one after the other, and yield their numbers.

    Raises:
        InputError: if a job fails, or the launcher's environment variables are wrong.
    """
    for number in share_of_rank(jobs, process_ratio()):
        jobs[number]()
        yield number


def by_ray(
    jobs: Mapping[int, Job], gpus: bool = False, workers: int | None = None
) -> Iterator[int]:
    """Run jobs on a Ray cluster, and yield their numbers as they end.

    The jobs of a worker that is lost are moved to another. The cluster is that of ``RAY_ADDRESS``
    or of this machine, else one that lives as long as this process.

    Args:
        jobs: jobs, which pickle, by number.
        gpus: whether a worker needs a GPU.
        workers: number of workers; by default one for each GPU or core of the cluster.

    Raises:
        InputError: if Ray is missing, a job fails, or it ended its worker several times.
    """
    with needs("ray", "--engine ray", RAY_EXTRA):
        import ray  # pyright: ignore[reportMissingImports]
    if process_ratio()[1] > 1:
        raise InputError("--engine ray: starts its workers itself; unset RANK and WORLD_SIZE")
    if not jobs:
        return
    own = not ray.is_initialized()
    if own:
        with needs("ray", "--engine ray"):  # also if there is no cluster at RAY_ADDRESS
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        there = int(ray.cluster_resources().get("GPU" if gpus else "CPU", 0))
        if not there:
            raise InputError("--engine ray: the cluster has no GPU; use --device cpu, or add one")
        kind = ray.remote(
            num_cpus=CORES_OF_A_WORKER,
            num_gpus=int(gpus),
            max_restarts=-1,
            max_task_retries=RETRIES,
        )(_Worker)
        pool = [kind.remote() for _ in range(min(workers or there, len(jobs)))]
        yield from _spread(ray, jobs, pool)
    finally:
        if own:
            ray.shutdown()


class _Worker:
    """A process of the cluster; what jobs cache, such as a model, stays in it."""

    def run(self, job: Job) -> str | None:
        """Run a job; return the message if its input is wrong, since Ray would wrap an error."""
        try:
            job()
        except InputError as fault:
            return str(fault)
        return None


def _spread(ray: Any, jobs: Mapping[int, Job], pool: list[Any]) -> Iterator[int]:
    """Give a job to each idle worker until all are done."""
    waiting = iter(jobs.items())
    running: dict[Any, tuple[int, Any]] = {}

    def give(worker: Any) -> None:
        number, job = next(waiting, (None, None))
        if number is not None:
            running[worker.run.remote(job)] = number, worker

    for worker in pool:
        give(worker)
    while running:
        (done,), _ = ray.wait(list(running))
        number, worker = running.pop(done)
        try:
            fault = ray.get(done)
        except ray.exceptions.RayActorError as error:
            raise InputError(
                f"--engine ray: shard {number} ended its worker {RETRIES + 1} times, perhaps by "
                "its memory; start again with smaller shards: what is done is kept"
            ) from error
        if fault is not None:
            raise InputError(*fault.split("\n"))
        yield number
        give(worker)

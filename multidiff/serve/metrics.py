"""Counters of a service, in the format of Prometheus."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

if TYPE_CHECKING:
    from multidiff.serve.jobs import Worker

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
ROWS = (1, 2, 4, 8, 16, 32)


class Metrics:
    """Counters of one service.

    Attributes:
        batches: requests that each network evaluation served, by model.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        counted: Any = {"labelnames": ["model"], "registry": self.registry}
        ended: Any = {**counted, "labelnames": ["model", "outcome"]}
        self._ended = Counter("multidiff_requests", "Requests that ended.", **ended)
        self._seconds = Histogram(
            "multidiff_request_seconds", "Time that requests ran.", buckets=SECONDS, **counted
        )
        self.batches = Histogram(
            "multidiff_batch_requests", "Requests of a network evaluation.", buckets=ROWS, **counted
        )
        self._waiting = Gauge("multidiff_waiting", "Requests that wait.", **counted)
        self._running = Gauge("multidiff_running", "Requests that run.", **counted)

    def watch(self, workers: Mapping[str, Worker]) -> None:
        """Report how many requests of each worker wait and run."""
        for name, worker in workers.items():
            self._waiting.labels(name).set_function(partial(getattr, worker, "waiting"))
            self._running.labels(name).set_function(partial(getattr, worker, "running"))

    def ended(self, name: str, outcome: str, seconds: float) -> None:
        """Count a request that ended."""
        self._ended.labels(name, outcome).inc()
        self._seconds.labels(name).observe(seconds)

    def text(self) -> bytes:
        """Return all of it in the text format."""
        return generate_latest(self.registry)

"""Models that answer requests: a worker for each, and what they count."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import pydantic

from multidiff.serve.batching import Batcher
from multidiff.serve.families import Family, family_of
from multidiff.serve.jobs import FAILED, Event, Job, Lane, Worker
from multidiff.serve.metrics import Metrics
from multidiff.serve.schemas import Body, body_of, one_line
from multidiff.serve.settings import ServerSettings
from multidiff.utils.errors import InputError
from multidiff.utils.names import suggestion


class Served:
    """One model of a service.

    Args:
        name: its name in paths.
        model: the model, loaded.
        settings: limits.
        metrics: what is counted.

    Attributes:
        family: its family.
        body: class of its requests.
        worker: what runs them.

    Raises:
        InputError: if it generates nothing to serve.
    """

    def __init__(self, name: str, model: Any, settings: ServerSettings, metrics: Metrics):
        self.name, self.model, self.settings = name, model, settings
        self.family: Family = family_of(model, name)
        inputs = self.family.inputs(model, settings)
        title = "".join(part.title() for part in name.replace("-", " ").replace("_", " ").split())
        self.body = body_of(f"{title}Request", inputs, model.sampling)
        self._process = os.getpid()
        self.batcher = self._batcher(metrics)
        threads = 1 if self.batcher is None else settings.batch
        lane = partial(Lane, model, self.batcher, self.family.network)
        self.worker = Worker(name, threads, settings.queue, lane, partial(metrics.ended, name))
        if self.batcher is not None:
            self.batcher.coming = lambda: self.worker.waiting

    def _batcher(self, metrics: Metrics) -> Batcher | None:
        """Return what batches its network's calls; None if it is called in another way."""
        if not self.family.network or self.settings.batch == 1:
            return None
        if getattr(self.model, "block", 0):  # a KV cache of its own for each text
            return None
        network = getattr(self.model, self.family.network)
        observe = metrics.batches.labels(self.name).observe
        return Batcher(network, self.settings.batch, observe)

    def close(self) -> None:
        """Finish what waits, and end the threads."""
        self.worker.close()
        if self.batcher is not None:
            self.batcher.close()

    def submit(self, body: Body, detailed: bool = True) -> Job:
        """Queue a request.

        Args:
            body: the request.
            detailed: whether to report what is made before the answer.

        Raises:
            RuntimeError: in a process forked from that of the service, which has no threads.
            Busy: if too many wait.
        """
        if os.getpid() != self._process:
            raise RuntimeError(
                f"this service runs in process {self._process}; create one after forking"
            )

        def work(model: Any, job: Job) -> Event:
            return self.family.make(model, body, job, self.settings)

        job = Job(work, self.settings.time_limit_seconds, detailed)
        self.worker.submit(job)
        return job


class Service:
    """Several models behind one interface, for the routes and for the page.

    Args:
        models: loaded models by name.
        settings: limits.

    Attributes:
        models: the models by name.
        metrics: what is counted.

    Raises:
        InputError: if a model generates nothing to serve.
    """

    def __init__(self, models: Mapping[str, Any], settings: ServerSettings):
        self.settings, self.metrics = settings, Metrics()
        self.models = {
            name: Served(name, model, settings, self.metrics) for name, model in models.items()
        }
        self.metrics.watch({name: one.worker for name, one in self.models.items()})
        self.accepting = True

    def submit(self, name: str, fields: Mapping[str, Any]) -> Job:
        """Queue a request; its events say what becomes of it.

        Args:
            name: name of the model.
            fields: the request, as the body of the model's route.

        Raises:
            InputError: if the request is wrong.
            Busy: if too many wait.
        """
        if name not in self.models:
            raise InputError(f"model {name}: {suggestion(name, self.models)}")
        served = self.models[name]
        try:
            body = served.body(**fields)
        except pydantic.ValidationError as error:
            raise InputError(one_line(error)) from error
        return served.submit(body)

    def answer(self, name: str, fields: Mapping[str, Any]) -> Event:
        """Return the answer to a request, when it is made.

        Raises:
            InputError: if the request is wrong, or failed.
            Busy: if too many wait.
        """
        *_, last = self.submit(name, fields).events()
        if last.name == FAILED:
            raise InputError(last.data["detail"])
        return last

    def close(self) -> None:
        """Finish what waits, and end the threads."""
        self.accepting = False
        for one in self.models.values():
            one.close()

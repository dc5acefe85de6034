"""Dynamic batching: network calls of requests that run at once become one evaluation.

Each request runs its own sampling loop, so requests whose steps, samplers, guidance, seeds and
prompts differ share evaluations, and join and leave at any step. The answer to a request must equal
to the bit the one that it gets alone, but kernels of another batch size may add in another order:

- Layers that do (some matrix products and convolutions) are evaluated call by call inside the
  batch. Which they are is measured once for each shape, on random inputs.
- The first batch of each kind and size is evaluated call by call as well. If any bit differs, calls
  of that kind are not batched, and the separate outputs are returned in any case.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from multidiff.models.views import shared_copy
from multidiff.serve.merging import equal, merged, parted, signature

logger = logging.getLogger(__name__)

# Numbers of calls in a batch; a batch between two of them repeats its last call.
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
# Time that calls wait for one more of another request: a fraction of the last evaluation.
PATIENCE, LEAST_SECONDS = 0.5, 0.01
ALIGNMENT = 64
# Kinds of batches of which it is remembered whether they are equal to separate calls.
MOST_KINDS = 1000


class Call:
    """One call of a network that waits for its output.

    Args:
        inputs: its arguments.
        named: its named arguments.
    """

    def __init__(self, inputs: tuple[Any, ...], named: dict[str, Any] | None = None):
        self.inputs = (inputs, named or {})
        self.kind = signature(self.inputs)
        self.done = threading.Event()
        self.output: Any = None
        self.error: Exception | None = None

    def result(self) -> Any:
        """Wait for the output.

        Raises:
            Exception: what the evaluation raised.
        """
        self.done.wait()
        if self.error is not None:
            raise self.error
        return self.output


class Batcher:
    """A network that is called by several threads.

    Args:
        network: the network; it takes tensors of the same number of rows, or structures of them.
        most: largest number of calls in a batch.
        on_batch: called with the number of calls of each evaluation.

    Attributes:
        coming: number of requests that are about to run, whose calls are worth waiting for.
    """

    def __init__(
        self, network: nn.Module, most: int, on_batch: Callable[[int], None] = lambda count: None
    ):
        self.exact, self.most, self._on_batch = ExactNetwork(network), most, on_batch
        self.coming: Callable[[], int] = lambda: 0
        self._calls: list[Call] = []
        self._changed = threading.Condition()
        self._running, self._closed = 0, False
        self._seconds = 0.0
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Return the network's output, once it is evaluated with the calls of other threads."""
        call = Call(inputs, named)
        with self._changed:
            self._calls.append(call)
            self._changed.notify_all()
        return call.result()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count a request in the block, whose next call is worth waiting for."""
        with self._changed:
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """End its thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while group := self._next_group():
            began = time.monotonic()
            try:
                self.exact.evaluate(group)
            except Exception as error:
                for call in group:
                    call.error = error
            self._seconds = time.monotonic() - began
            self._on_batch(len(group))
            for call in group:
                call.done.set()
            del group, call  # tensors are freed while no calls come

    def _expected(self) -> int:
        """Return how many calls there will be when each request has made its next one."""
        return min(self.most, self._running + self.coming())

    def _next_group(self) -> list[Call]:
        """Wait for calls, and return those of the oldest one's kind; none when it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._calls or self._closed)
            patience = max(LEAST_SECONDS, PATIENCE * self._seconds)
            while len(self._calls) < self._expected() and self._changed.wait(patience):
                pass  # of each call that comes, the next is worth waiting for as long again
            kind = self._calls[0].kind if self._calls else None
            group = [call for call in self._calls if call.kind == kind][: self.most]
            self._calls = [call for call in self._calls if call not in group]
            return group


class ExactNetwork:
    """A network whose batches equal separate calls to the bit.

    Args:
        network: the network.
    """

    def __init__(self, network: nn.Module):
        self.network = shared_copy(network)
        self.count = 1
        # Whether batches of a kind and size are equal; whether a layer's are.
        self._batches: dict[Hashable, bool] = {}
        self._layers: dict[Hashable, bool] = {}
        for layer in self.network.modules():
            if _may_differ(layer):
                layer.forward = _Layer(self, layer)

    @torch.no_grad()
    def evaluate(self, calls: list[Call]) -> None:
        """Give each call its output."""
        size = next((one for one in SIZES if one >= len(calls)), len(calls))
        key = (calls[0].kind, size)
        if len(calls) == 1 or self._batches.get(key) is False:
            return self._separately(calls)
        inputs = [call.inputs for call in calls]
        try:
            self.count = size
            taken, named = merged(inputs + inputs[-1:] * (size - len(calls)))
            outputs = parted(self.network(*taken, **named), size)[: len(calls)]
        except Exception:  # of which one request may be the reason
            return self._separately(calls)
        finally:
            self.count = 1
        if key not in self._batches:
            if len(self._batches) >= MOST_KINDS:
                self._batches.clear()
                self._layers.clear()
            self._separately(calls)
            pairs = [(c.output, one) for c, one in zip(calls, outputs, strict=True)]
            self._batches[key] = all(c.error is None for c in calls) and all(
                equal(*pair) for pair in pairs
            )
            if not self._batches[key]:
                logger.warning("%s: not batched, since bits differ", type(self.network).__name__)
            return
        for call, output in zip(calls, outputs, strict=True):
            call.output = output

    def _separately(self, calls: list[Call]) -> None:
        for call in calls:
            try:
                taken, named = call.inputs
                call.output = self.network(*taken, **named)
            except Exception as error:
                call.error = error

    def layer(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Return a layer's output, call by call if that of the whole batch has other bits."""
        count, whole = self.count, type(layer).forward
        if count == 1 or len(x) % count:
            return whole(layer, x)
        weight: Any = layer.weight
        moves = getattr(layer, "stride", None), getattr(layer, "padding", None)
        key = (type(layer), weight.shape, moves, x.shape, x.stride(), x.dtype, count)
        if key not in self._layers:
            trial = torch.empty_like(x).normal_()
            parts = torch.cat([whole(layer, one) for one in _parts(trial, count)])
            self._layers[key] = torch.equal(whole(layer, trial), parts)
        if self._layers[key]:
            return whole(layer, x)
        return torch.cat([whole(layer, one) for one in _parts(x, count)])


class _Layer:
    """Forward of a layer in an exact network."""

    def __init__(self, network: ExactNetwork, layer: nn.Module):
        self.network, self.layer = network, layer

    def __call__(self, x: Tensor) -> Tensor:
        return self.network.layer(self.layer, x)


def _may_differ(layer: nn.Module) -> bool:
    """Return whether a layer is a matrix product or convolution, whose kernel depends on shapes."""
    return isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d)


def _parts(x: Tensor, count: int) -> list[Tensor]:
    """Return the rows of each call, aligned in memory as a tensor of its own is."""
    parts = x.chunk(count)
    return [one if one.data_ptr() % ALIGNMENT == 0 else one.clone() for one in parts]

"""Batches that are a function of their number.

The content of batch ``k`` follows from the seed and ``k`` alone: shuffling, crops, noise. So
training resumes bit by bit from the number of the next batch alone, and several processes
split one batch by rows: two processes with half of it each see what one with all of it sees.
"""

from __future__ import annotations

import atexit
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from multidiff.core.draws import draws_nothing
from multidiff.core.random import mixed_seed
from multidiff.data.group_order import Grouping, GroupOrder
from multidiff.data.order import EpochOrder
from multidiff.utils.errors import InputError
from multidiff.utils.fingerprint import Fingerprint, of_arrays
from multidiff.utils.signals import ignore_interruptions, withheld_from_children


@runtime_checkable
class Examples(Protocol):
    """Single examples, cropped from media at random."""

    def __len__(self) -> int:
        """Return the number of examples in an epoch."""
        ...

    def example(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Return one example: tensors without a batch dimension, and names."""
        ...


@runtime_checkable
class ExamplesByIndex(Examples, Protocol):
    """Examples without random cuts, of which a batch is taken in one piece."""

    def take(self, indices: np.ndarray) -> dict[str, Any]:
        """Return the batch that :func:`collate` would make of the examples of these indices."""
        ...


class TensorExamples:
    """Examples that lie in memory as tensors, the rows of which are the examples.

    Args:
        columns: a tensor for each key, ``(examples, ...)``, all of one length.

    Raises:
        ValueError: if there is no column, or their lengths differ.
    """

    def __init__(self, **columns: Tensor):
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"columns of lengths {lengths}: give one or more, of one length")
        self.columns = columns

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def example(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """See :class:`Examples`."""
        return {name: column[index] for name, column in self.columns.items()}

    @draws_nothing
    def take(self, indices: np.ndarray) -> dict[str, Tensor]:
        """See :class:`ExamplesByIndex`."""
        chosen = torch.from_numpy(indices)
        return {name: column[chosen] for name, column in self.columns.items()}

    def data_fingerprint(self) -> dict[str, Fingerprint]:
        """Return the fingerprint of the columns' content."""
        contents = ((name, _content_of(column)) for name, column in self.columns.items())
        return {"columns": of_arrays(contents)}


@runtime_checkable
class Synthetic(Protocol):
    """A component that reads files, and that a dry run can replace.

    Optional: components without it are built normally, and their files must exist. Its class
    method makes an object of the same shapes from the same arguments.

    Attributes:
        assumed: a line about what was assumed instead of being read; empty if nothing was.
    """

    assumed: str

    @classmethod
    def synthetic(cls, *arguments: Any, **options: Any) -> Any:
        """Return a stand-in for an object with these arguments, without reading files."""
        ...


@runtime_checkable
class BatchSource(Protocol):
    """An endless sequence of batches."""

    def batch(self, number: int, part: int = 0, parts: int = 1) -> dict[str, Any]:
        """Return one of ``parts`` equal parts of the batch with that number."""
        ...


class Batches:
    """Shuffled batches of examples, epoch after epoch.

    Args:
        examples: source of the examples. If it has a ``grouping``, whole groups are read in the
            order of :class:`~multidiff.data.group_order.GroupOrder`.
        batch_size: number of examples in one batch, over all processes.
        seed: random seed of the shuffling and of the examples' own randomness.
        shuffle: whether to shuffle each epoch; otherwise the examples keep their order.
        group_by_length: number of batches' worth of shuffled examples that are sorted by their
            ``lengths`` and cut into batches of similar length, whose order is random. Padding to
            the longest of a batch then costs little. 1 does not sort.

    Raises:
        ValueError: if there are no examples, or the batch is empty.
        InputError: if examples are to be sorted and have no ``lengths``.
    """

    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        group_by_length: int = 1,
    ):
        if len(examples) == 0 or batch_size < 1:
            raise ValueError(f"{len(examples)} examples, batch_size {batch_size}: both must be > 0")
        if group_by_length < 1 or (group_by_length > 1 and not hasattr(examples, "lengths")):
            raise InputError(
                f"group_by_length {group_by_length}: must be at least 1, and 1 for examples of "
                "unknown lengths, such as texts in an object store"
            )
        self.examples, self.batch_size = examples, batch_size
        self.seed, self.shuffle, self.group_by_length = seed, shuffle, group_by_length
        lengths: Any = getattr(examples, "lengths") if group_by_length > 1 else None  # noqa: B009
        if isinstance(lengths, list | tuple):
            lengths = np.array(lengths)
        grouping = getattr(examples, "grouping", None)
        if isinstance(grouping, Grouping):
            self._order = GroupOrder(grouping, seed, shuffle, batch_size)
        else:
            window = group_by_length * batch_size
            self._order = EpochOrder(len(examples), seed, shuffle, lengths, window, batch_size)
        self._by_index = isinstance(examples, ExamplesByIndex)

    def over(self, examples: Examples) -> Batches:
        """Return the same batches of other examples."""
        return Batches(examples, self.batch_size, self.seed, self.shuffle, self.group_by_length)

    def data_fingerprint(self) -> dict[str, Fingerprint]:
        """Return the fingerprints of the examples' data, where those give some, by attribute."""
        found = getattr(self.examples, "data_fingerprint", dict)()
        return {f"examples.{key}": one for key, one in found.items()}

    @property
    def batches_per_epoch(self) -> int:
        """Return the number of batches in an epoch, counting a last one shared with the next."""
        return math.ceil(len(self.examples) / self.batch_size)

    def batch(self, number: int, part: int = 0, parts: int = 1) -> dict[str, Any]:
        """See :class:`BatchSource`.

        Raises:
            InputError: if the batch cannot be split evenly.
        """
        if self.batch_size % parts:
            raise InputError(
                f"batch_size {self.batch_size} cannot be split evenly over {parts} processes; "
                "make it a multiple, or start fewer processes"
            )
        ratio = self.batch_size // parts
        first = number * self.batch_size + part * ratio
        indices = self._order.indices(first, first + ratio)
        if self._by_index:
            return cast(ExamplesByIndex, self.examples).take(indices)
        return collate([self._visit(first + n, int(index)) for n, index in enumerate(indices)])

    def _visit(self, where: int, index: int) -> dict[str, Any]:
        return self.examples.example(index, np.random.default_rng(mixed_seed(self.seed, 1, where)))


class ListedBatches:
    """Batches given as a list of dicts, repeated endlessly.

    Args:
        batches: dicts of tensors with the batch first.
    """

    def __init__(self, batches: Sequence[dict[str, Any]]):
        if len(batches) == 0:
            raise ValueError("the list of batches to train on is empty")
        self.batches = batches

    def batch(self, number: int, part: int = 0, parts: int = 1) -> dict[str, Any]:
        """See :class:`BatchSource`."""
        return rows_of(self.batches[number % len(self.batches)], part, parts)

    def data_fingerprint(self) -> dict[str, Fingerprint]:
        """Return the fingerprint of the batches' content."""
        return {"batches": of_arrays(self._contents())}

    def _contents(self) -> Iterator[tuple[str, memoryview]]:
        for number, batch in enumerate(self.batches):
            yield from _contents_of(batch, str(number))


def _contents_of(batch: dict[str, Any], name: str) -> Iterator[tuple[str, memoryview]]:
    for key, value in batch.items():
        if isinstance(value, Tensor):
            yield f"{name}.{key} {tuple(value.shape)}", _content_of(value)
        elif isinstance(value, dict):
            yield from _contents_of(value, f"{name}.{key}")
        else:
            yield f"{name}.{key}", memoryview(repr(value).encode())


def _content_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor."""
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data


def source_of(batches: BatchSource | list[dict[str, Any]]) -> BatchSource:
    """Return batches by their number; a list of them is repeated endlessly.

    Raises:
        TypeError: if they are neither a batch source nor a list.
    """
    if isinstance(batches, list):
        return ListedBatches(batches)
    if not hasattr(batches, "batch"):
        raise TypeError(
            f"a {type(batches).__name__} cannot be read as batches: "
            "pass a list of batches, or Batches(examples, batch_size)"
        )
    return batches


def collate(examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Collate examples to a batch: tensors and numbers are stacked, the rest become lists."""
    batch: dict[str, Any] = {}
    for key, first in examples[0].items():
        values = [example[key] for example in examples]
        if isinstance(first, Tensor):
            batch[key] = torch.stack(values)
        elif isinstance(first, int | float | np.number):
            batch[key] = torch.tensor(values)
        else:
            batch[key] = values
    return batch


def examples_in(batch: Any) -> int:
    """Return the number of examples in a batch, by its first value that has one for each.

    That is a tensor or an array with dimensions, or a list; dicts are searched, and what has no
    rows (numbers, text, None) is passed over.

    Raises:
        InputError: if no value has one.
    """
    found = _first_length(batch)
    if found is None:
        keys = f" with the keys {[*batch]}" if isinstance(batch, Mapping) else ""
        raise InputError(
            f"a batch, a {type(batch).__name__}{keys}, has no value with a row for each example: "
            "give it a tensor or a list, the batch first"
        )
    return found


def _first_length(value: Any) -> int | None:
    if isinstance(value, Mapping):
        lengths = (_first_length(one) for one in value.values())
        return next((one for one in lengths if one is not None), None)
    if isinstance(value, Tensor | np.ndarray):
        return len(value) if value.ndim else None
    return len(value) if isinstance(value, list | tuple) else None


def rows_of(batch: dict[str, Any], part: int, parts: int) -> dict[str, Any]:
    """Return one of ``parts`` equal parts of a batch, of dicts inside it too.

    Raises:
        InputError: if the batch cannot be split evenly.
    """
    ratio = {}
    for key, values in batch.items():
        if isinstance(values, dict):
            ratio[key] = rows_of(values, part, parts)
            continue
        if len(values) % parts:
            raise InputError(f"a batch of {len(values)} cannot be split over {parts} processes")
        size = len(values) // parts
        ratio[key] = values[part * size : (part + 1) * size]
    return ratio


@draws_nothing
def moved_batch(batch: Any, device: torch.device) -> Any:
    """Return a batch whose tensors lie on a device, inside dicts, lists and tuples too."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: moved_batch(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple) and any(not isinstance(one, str) for one in batch):
        moved = [moved_batch(one, device) for one in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else type(batch)(moved)
    return batch


class _Numbered(Dataset):
    """A batch source as a data set whose items are whole batches, for worker processes."""

    def __init__(self, source: BatchSource, part: int, parts: int):
        self.source, self.part, self.parts = source, part, parts

    def __getitem__(self, number: int) -> dict[str, Any] | InputError:
        try:
            return self.source.batch(number, self.part, self.parts)
        except InputError as fault:  # raised in a worker, it would come with the worker's traceback
            return fault


def stream(
    source: BatchSource, numbers: range, part: int, parts: int, workers: int, pin: bool
) -> Iterator[dict[str, Any]]:
    """Return the batches with these numbers, prefetched by worker processes if there are any."""
    if not workers and not pin:
        return (source.batch(number, part, parts) for number in numbers)
    loader = DataLoader(
        _Numbered(source, part, parts),
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=False,
        worker_init_fn=ignore_interruptions,
        generator=torch.Generator(),  # otherwise it draws from the process's default generator
    )
    with withheld_from_children():
        found = iter(loader)
    _OPEN.add(found)
    return _raising(found)


def _raising(found: Iterator[Any]) -> Iterator[dict[str, Any]]:
    try:
        for one in found:
            if isinstance(one, InputError):
                raise one
            yield one
    finally:
        del found  # ends the workers, even if the error's traceback keeps this frame


_OPEN: WeakSet[Any] = WeakSet()


@atexit.register
def _end_workers() -> None:
    """End the workers of streams that are left when the interpreter exits.

    multiprocessing would wait for them without end: they ignore the signal that it sends.
    """
    for found in list(_OPEN):
        getattr(found, "_shutdown_workers", bool)()

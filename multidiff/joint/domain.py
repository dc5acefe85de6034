"""Records as joint states: the tokens of each medium, and which media are there."""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from multidiff.core.protocols import Domain, Encoded
from multidiff.core.random import Rng
from multidiff.data.batches import TensorExamples
from multidiff.joint.records import Records, usable
from multidiff.joint.streams import TokenStream
from multidiff.utils.errors import InputError

logger = logging.getLogger(__name__)

MISSING = -1


class StreamDomain(nn.Module, Domain):
    """Several media as one joint state.

    A medium that a record lacks is wholly masked and has no loss, as if it had been left out.

    Args:
        streams: media by their names, which are the columns of the records.

    Raises:
        ValueError: if there are fewer than two media.
    """

    def __init__(self, streams: Mapping[str, TokenStream]):
        if len(streams) < 2:
            raise ValueError(f"{len(streams)} streams: a joint model has at least two media")
        super().__init__()
        self.streams = nn.ModuleDict(streams)
        self.place: Tensor
        # Texts alone have no weights; this moves with the domain, and is not saved.
        self.register_buffer("place", torch.zeros(1), persistent=False)
        self._reported: set[tuple[str, tuple[str, ...]]] = set()

    def __getitem__(self, name: str) -> TokenStream:
        return self.streams[name]  # pyright: ignore[reportReturnType]

    def __iter__(self) -> Any:
        return iter(self.streams)

    def encode(self, batch: Any, rng: Rng | None) -> Encoded:
        """Return the tokens of each medium, and a mask that is false where it is missing.

        A batch has a list of cells for each medium, or tokens of a first pass. A medium without a
        column is missing in all its records.

        Raises:
            InputError: if it has none of the media.
        """
        absent = self.absent(batch, "a batch")
        count = len(next(batch[name] for name in self if name not in absent))
        x0, mask = {}, {}
        for name in self:
            tokens = self.tokens(name, [None] * count if name in absent else batch[name])
            missing = tokens[:, :1] == MISSING
            x0[name] = tokens.masked_fill(missing, self[name].size)
            mask[name] = (~missing).expand(tokens.shape)
        return Encoded(x0, mask=mask)

    @property
    def device(self) -> torch.device:
        """Device that it was moved to."""
        return next(self.parameters(), self.place).device

    def absent(self, columns: Container[str], where: str) -> tuple[str, ...]:
        """Return the media that have no column, and report them once.

        Args:
            columns: names of the columns that there are.
            where: name of what has them, for messages.

        Raises:
            InputError: if there is no column of any medium.
        """
        found = tuple(name for name in self if name not in columns)
        names = ", ".join(found)
        if len(found) == len(self.streams):
            raise InputError(f"{where}: has no column {names}; name its columns as the media are")
        if found and (where, found) not in self._reported:
            self._reported.add((where, found))
            these = "it is" if len(found) == 1 else "these media are"
            logger.warning("%s: has no column %s: %s not trained", where, names, these)
        return found

    @torch.no_grad()
    def tokens(self, name: str, cells: Any) -> Tensor:
        """Return the tokens of cells of one medium; ``MISSING`` for empty ones."""
        stream = self[name]
        if isinstance(cells, Tensor):
            return cells.long()
        media = usable(cells, stream.read)
        found = torch.full((len(media), stream.length), MISSING)
        there = [row for row, one in enumerate(media) if one is not None]
        if there:
            encoded = stream.encode([media[row] for row in there])
            if bool((encoded == stream.size).any()):
                raise InputError(f"{name}: a text of the records has [MASK]; take such records out")
            found[there] = encoded.to(found.device)
        # Texts are encoded on the CPU, and a medium that all records lack is encoded nowhere.
        return found.to(self.device)

    def decode(self, state: Any, condition: Any = None) -> dict[str, list[Any]]:
        """Return the media of each part."""
        return {name: self[name].decode(one, range(len(one))) for name, one in state.items()}

    def assets(self) -> dict[str, str]:
        """Return the assets of all streams by file name.

        Raises:
            InputError: if two media have different files of one name.
        """
        found: dict[str, str] = {}
        for name in self:
            for file, text in self[name].assets().items():
                if found.setdefault(file, text) != text:
                    raise InputError(
                        f"streams.{name}: its {file} is another than that of the medium before; "
                        "give both texts one vocabulary"
                    )
        return found

    def load_assets(self, folder: Path) -> None:
        """Load the assets of all streams from a folder."""
        for name in self:
            self[name].load_assets(folder)

    def data_fingerprint(self) -> dict[str, Any]:
        """Return the fingerprints of the sources of the streams' assets."""
        return {
            f"{name}.{key}": one
            for name in self
            for key, one in self[name].data_fingerprint().items()
        }


class TokenCache:
    """First pass over records that encodes each distinct medium once, and keeps the tokens.

    Args:
        batch_size: number of media encoded at a time.
    """

    def __init__(self, batch_size: int = 256):
        self.batch_size = batch_size

    @classmethod
    def synthetic(cls, batch_size: int = 256) -> TokenCache:
        """Return the same cache, for dry runs."""
        return cls(batch_size)

    def __call__(self, model: Any, batches: Any) -> Any:
        """Return the same batches, of tokens.

        Args:
            model: model whose domain encodes.
            batches: batches of :class:`~multidiff.joint.records.Records`.

        Raises:
            InputError: if the records have none of the model's media.
        """
        records: Records = batches.examples
        model.domain.absent(records.media, records.path)
        columns = {name: self._encoded(model.domain, name, records) for name in model.domain}
        return batches.over(TensorExamples(**columns))

    def _encoded(self, domain: StreamDomain, name: str, records: Records) -> Tensor:
        """Return the tokens of one medium of all records."""
        number_of: dict[Any, int] = {}
        cells, rows = [], []
        for index in range(len(records)):
            cell = records.cell(index, name) if name in records.media else None
            key = None if cell is None else _key(cell.value)
            if key not in number_of:
                number_of[key] = len(cells)
                cells.append(cell)
            rows.append(number_of[key])
        parts = [
            domain.tokens(name, cells[n : n + self.batch_size])
            for n in range(0, len(cells), self.batch_size)
        ]
        return torch.cat(parts).to(
            "cpu", torch.int16 if domain[name].size < 2**15 else torch.int32
        )[rows]


def _key(value: Any) -> Any:
    """Return what makes two cells one medium."""
    if isinstance(value, Mapping):
        return value.get("bytes") or value.get("path")
    return value

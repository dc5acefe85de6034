"""First pass over images that stores their latents or tokens, so training need not encode."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from multidiff.data.columns import Columns
from multidiff.data.prepare import Plan, prepared
from multidiff.data.table_writer import ColumnWriter
from multidiff.image.data.images import Images
from multidiff.image.diffusion.domains import LatentDomain
from multidiff.image.diffusion.model import ImageDiffusion
from multidiff.image.maskgit.domain import ImageTokenDomain
from multidiff.image.maskgit.model import MaskGIT
from multidiff.models.weights import read_tensors, save_tensors
from multidiff.utils.errors import InputError
from multidiff.utils.files import atomic_write

logger = logging.getLogger(__name__)

MOST_IN_MEMORY = 1 << 30
IMAGES_OF_A_PART = 2048


class Shuffled(Protocol):
    """Batches that can be made of other examples in the same order."""

    examples: Any

    def over(self, examples: Any) -> Any:
        """Return the same batches of other examples."""
        ...


# Domains with an autoencoder; ``kept`` returns what a batch may have instead of the images.
Encoding = LatentDomain | ImageTokenDomain


class LatentCache:
    """Encodes every image once; training reads the stored encodings.

    Encodings of more than a gigabyte are read from a table on disk, which is made in parts: a pass
    that was killed goes on.

    For a KL autoencoder the Gaussian is stored, not a draw from it, so training sees new
    draws in every epoch as it would without the cache; for a quantized one, the tokens. The
    file is named after the images and the autoencoder's weights: if either changes, a new
    one is made.

    Args:
        folder: folder of the cache; None keeps it in memory only, or if it is too large for that,
            in the user's cache folder.
        batch_size: number of images encoded at a time.
    """

    def __init__(self, folder: str | None = None, batch_size: int = 64):
        self.folder = None if folder is None else Path(folder)
        self.batch_size = batch_size

    @classmethod
    def synthetic(cls, folder: str | None = None, batch_size: int = 64) -> LatentCache:
        """Return a cache without files, for dry runs."""
        return cls(None, batch_size)

    def __call__(self, model: ImageDiffusion | MaskGIT, batches: Shuffled) -> Any:
        """Return the same batches, of the stored encodings.

        Raises:
            InputError: if the model has no autoencoder, or the images are changed at each
                visit.
        """
        domain, images = model.domain, batches.examples
        if not isinstance(domain, Encoding) or not isinstance(images, Images):
            raise InputError(
                "LatentCache: works only for a LatentDomain or ImageTokenDomain of Images"
            )
        if images.flip:
            raise InputError("LatentCache: stored encodings cannot be flipped; set flip: false")
        return batches.over(CachedLatents(images, self._kept(domain, images)))

    def _kept(self, domain: Encoding, images: Images) -> Mapping[str, Any]:
        """Return the encodings of every image, from the file or table if it exists."""
        first = self._encoded(domain, images, range(min(len(images), self.batch_size)))
        size = sum(value[0].numel() * value.element_size() for value in first.values())
        if size * len(images) > MOST_IN_MEMORY:
            return self._stored(domain, images, first)
        if self.folder is None:
            return self._encoded(domain, images)
        path = self.folder / f"latents-{_name(domain, images)}.safetensors"
        if not path.is_file():
            logger.warning("first pass: %d images encoded into %s", len(images), path)
            found = self._encoded(domain, images)
            with atomic_write(path) as unfinished:
                save_tensors(found, unfinished)
        return read_tensors(path)[0]

    def _stored(
        self, domain: Encoding, images: Images, first: dict[str, Tensor]
    ) -> Mapping[str, Any]:
        plan = latents_plan(self, domain, images, first)
        if not plan.is_prepared:
            logger.warning("first pass: %d images encoded into %s", len(images), plan.folder)
        table = prepared(plan, workers=1)  # the model is here
        return {name: StoredTensors(table, name) for name in first}

    def write_part(
        self, domain: Encoding, images: Images, numbers: range, writer: ColumnWriter
    ) -> None:
        """Encode some images as the rows of a part."""
        for start in range(numbers.start, numbers.stop, self.batch_size):
            some = range(start, min(start + self.batch_size, numbers.stop))
            found = self._encoded(domain, images, some)
            writer.extend(
                {name: [value[0].numel()] * len(value) for name, value in found.items()},
                **{name: value.flatten().numpy() for name, value in found.items()},
            )

    @torch.no_grad()
    def _encoded(
        self, domain: Encoding, images: Images, numbers: range | None = None
    ) -> dict[str, Tensor]:
        numbers = range(len(images)) if numbers is None else numbers
        found: list[dict[str, Tensor]] = []
        for first in range(numbers.start, numbers.stop, self.batch_size):
            some = range(first, min(first + self.batch_size, numbers.stop))
            batch = torch.stack([images.image(number) for number in some])
            found.append({name: value.cpu() for name, value in domain.kept(batch).items()})
        return {name: torch.cat([one[name] for one in found]) for name in found[0]}


def latents_plan(
    cache: LatentCache, domain: Encoding, images: Images, first: Mapping[str, Tensor]
) -> Plan[range]:
    """Return the plan of a table of encodings.

    Args:
        cache: how they are made.
        domain: domain with the autoencoder.
        images: the images.
        first: encodings of some images, for their names and shapes.
    """
    count = len(images)
    parts = [range(a, min(a + IMAGES_OF_A_PART, count)) for a in range(0, count, IMAGES_OF_A_PART)]
    return Plan(
        "latents",
        {"images": _name(domain, images)},
        {name: f"{value.numpy().dtype.name}[]" for name, value in first.items()},
        parts=lambda: parts,
        make=partial(cache.write_part, domain, images),
        size_of=len,
        source=images.source.path,
        info={"shapes": {name: list(value.shape[1:]) for name, value in first.items()}},
        cache=cache.folder,
    )


class StoredTensors(Sequence):
    """Encodings on disk, one tensor for each image."""

    def __init__(self, table: Columns, name: str):
        self.column, self.shape = table.variable(name), table.info["shapes"][name]

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, row: Any) -> Any:
        return torch.from_numpy(self.column[int(row)]).view(self.shape)


class CachedLatents:
    """Examples with stored encodings instead of images.

    Args:
        images: images that provide captions and labels.
        kept: encodings, one row for each image.
    """

    def __init__(self, images: Images, kept: Mapping[str, Any]):
        self.images, self.kept, self.grouping = images, kept, images.grouping

    @property
    def labels(self) -> Tensor | None:
        """Labels of the images, if all have one."""
        return self.images.labels

    def __len__(self) -> int:
        return len(self.images)

    def example(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """See :class:`~multidiff.data.batches.Examples`."""
        index = self.images.stand_in(index)
        example = {
            **{name: value[index] for name, value in self.kept.items()},
            "caption": self.images.caption_of(index, rng),
            "name": f"{self.images.source.path}[{index}]",
        }
        label = self.images.label_of(index)
        if label is not None:
            example["label"] = label
        return example


def _name(domain: Encoding, images: Images) -> str:
    found = hashlib.sha256(f"{images.fingerprint()} {domain.pad_to}".encode())
    for name, tensor in domain.autoencoder.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().float().cpu().numpy().tobytes())
    return found.hexdigest()[:16]

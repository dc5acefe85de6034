"""A first pass over images: their latents or tokens, kept on disk; training encodes none."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from multidiff.image.data.images import Images
from multidiff.image.diffusion.domains import LatentDomain
from multidiff.image.diffusion.model import ImageDiffusion
from multidiff.image.maskgit.domain import ImageTokenDomain
from multidiff.image.maskgit.model import MaskGIT
from multidiff.models.weights import read_tensors, save_tensors
from multidiff.utils.errors import InputError
from multidiff.utils.files import atomic_write

logger = logging.getLogger(__name__)


class Shuffled(Protocol):
    """Batches that can be made of other examples in the same order."""

    examples: Any

    def over(self, examples: Any) -> Any:
        """The same batches of other examples."""
        ...


# Domains with an autoencoder; ``kept`` says what of images a batch may have in their place.
Encoding = LatentDomain | ImageTokenDomain


class LatentCache:
    """Encodes every image once and trains on what was kept.

    The Gaussian of an autoencoder's encoder is kept, not a draw from it, so training sees new
    draws in every epoch as it would without the cache; of a quantised one the tokens are. The
    file is named after the images and the autoencoder's weights: when either changes, another
    one is made.

    Args:
        folder: where it is kept; in memory only where not given.
        batch_size: images encoded at a time.
    """

    def __init__(self, folder: str | None = None, batch_size: int = 64):
        self.folder = None if folder is None else Path(folder)
        self.batch_size = batch_size

    @classmethod
    def synthetic(cls, folder: str | None = None, batch_size: int = 64) -> LatentCache:
        """Return a cache that keeps nothing on disk, for dry runs."""
        return cls(None, batch_size)

    def __call__(self, model: ImageDiffusion | MaskGIT, batches: Shuffled) -> Any:
        """The same batches, of what was kept.

        Raises:
            InputError: if the model has no autoencoder, or the images are changed at each
                visit.
        """
        domain, images = model.domain, batches.examples
        if not isinstance(domain, Encoding) or not isinstance(images, Images):
            raise InputError(
                "LatentCache: keeps what a LatentDomain or ImageTokenDomain makes of Images"
            )
        if images.flip:
            raise InputError("LatentCache: what is kept cannot be flipped; set flip: false")
        return batches.over(CachedLatents(images, self._kept(domain, images)))

    def _kept(self, domain: Encoding, images: Images) -> dict[str, Tensor]:
        """What is kept of every image, from the file if there is one."""
        if self.folder is None:
            return self._encoded(domain, images)
        path = self.folder / f"latents-{_name(domain, images)}.safetensors"
        if not path.is_file():
            logger.warning("first pass: %d images encoded into %s", len(images), path)
            found = self._encoded(domain, images)
            with atomic_write(path) as partial:
                save_tensors(found, partial)
        return read_tensors(path)[0]

    @torch.no_grad()
    def _encoded(self, domain: Encoding, images: Images) -> dict[str, Tensor]:
        found: list[dict[str, Tensor]] = []
        for first in range(0, len(images), self.batch_size):
            numbers = range(first, min(first + self.batch_size, len(images)))
            batch = torch.stack([images.image(number) for number in numbers])
            found.append({name: value.cpu() for name, value in domain.kept(batch).items()})
        return {name: torch.cat([one[name] for one in found]) for name in found[0]}


class CachedLatents:
    """Examples with what was kept where the images were.

    Args:
        images: whose captions and labels they keep.
        kept: of each image, one a row.
    """

    def __init__(self, images: Images, kept: dict[str, Tensor]):
        self.images, self.kept, self.labels = images, kept, images.labels

    def __len__(self) -> int:
        return len(self.images)

    def example(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """See :class:`~multidiff.training.batches.Examples`."""
        index = self.images.stand_in(index)
        example = {
            **{name: value[index] for name, value in self.kept.items()},
            "caption": self.images.caption_of(index, rng),
            "name": f"{self.images.source.path}[{index}]",
        }
        if self.labels is not None:
            example["label"] = int(self.labels[index])
        return example


def _name(domain: Encoding, images: Images) -> str:
    found = hashlib.sha256(f"{images.fingerprint()} {domain.pad_to}".encode())
    for name, tensor in domain.autoencoder.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().float().cpu().numpy().tobytes())
    return found.hexdigest()[:16]

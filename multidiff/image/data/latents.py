"""First pass over images that stores their latents or tokens, so training need not encode."""

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
        """Return the same batches of other examples."""
        ...


# Domains with an autoencoder; ``kept`` returns what a batch may have instead of the images.
Encoding = LatentDomain | ImageTokenDomain


class LatentCache:
    """Encodes every image once; training reads the stored encodings.

    For a KL autoencoder the Gaussian is stored, not a draw from it, so training sees new
    draws in every epoch as it would without the cache; for a quantized one, the tokens. The
    file is named after the images and the autoencoder's weights: if either changes, a new
    one is made.

    Args:
        folder: folder of the cache; None keeps it in memory only.
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

    def _kept(self, domain: Encoding, images: Images) -> dict[str, Tensor]:
        """Return the encodings of every image, from the file if it exists."""
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
    """Examples with stored encodings instead of images.

    Args:
        images: images that provide captions and labels.
        kept: encodings, one row for each image.
    """

    def __init__(self, images: Images, kept: dict[str, Tensor]):
        self.images, self.kept, self.labels = images, kept, images.labels

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
        if self.labels is not None:
            example["label"] = int(self.labels[index])
        return example


def _name(domain: Encoding, images: Images) -> str:
    found = hashlib.sha256(f"{images.fingerprint()} {domain.pad_to}".encode())
    for name, tensor in domain.autoencoder.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().float().cpu().numpy().tobytes())
    return found.hexdigest()[:16]

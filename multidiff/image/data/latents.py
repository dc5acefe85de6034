"""A first pass over pictures: their latents or tokens, kept on disk; training encodes none."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from multidiff.image.data.images import Pictures
from multidiff.image.diffusion.domains import LatentDomain
from multidiff.image.diffusion.model import PictureDiffusion
from multidiff.image.maskgit.domain import PictureTokens
from multidiff.image.maskgit.model import TokenImages
from multidiff.models.weights import read_tensors, save_tensors
from multidiff.utils.errors import InputError
from multidiff.utils.files import written_whole

logger = logging.getLogger(__name__)


class Shuffled(Protocol):
    """Batches that can be made of other examples in the same order."""

    examples: Any

    def over(self, examples: Any) -> Any:
        """The same batches of other examples."""
        ...


# Domains with an autoencoder; ``kept`` says what of pictures a batch may have in their place.
Encoding = LatentDomain | PictureTokens


class LatentCache:
    """Encodes every picture once and trains on what was kept.

    The Gaussian of an autoencoder's encoder is kept, not a draw from it, so training sees new
    draws in every epoch as it would without the cache; of a quantised one the tokens are. The
    file is named after the pictures and the autoencoder's weights: when either changes, another
    one is made.

    Args:
        folder: where it is kept; in memory only where not given.
        batch_size: pictures encoded at a time.
    """

    def __init__(self, folder: str | None = None, batch_size: int = 64):
        self.folder = None if folder is None else Path(folder)
        self.batch_size = batch_size

    @classmethod
    def synthetic(cls, folder: str | None = None, batch_size: int = 64) -> LatentCache:
        """Return a cache that keeps nothing on disk, for dry runs."""
        return cls(None, batch_size)

    def __call__(self, model: PictureDiffusion | TokenImages, batches: Shuffled) -> Any:
        """The same batches, of what was kept.

        Raises:
            InputError: if the model has no autoencoder, or the pictures are changed at each
                visit.
        """
        domain, pictures = model.domain, batches.examples
        if not isinstance(domain, Encoding) or not isinstance(pictures, Pictures):
            raise InputError(
                "LatentCache: keeps what a LatentDomain or PictureTokens makes of Pictures"
            )
        if pictures.flip:
            raise InputError("LatentCache: what is kept cannot be flipped; set flip: false")
        return batches.over(Kept(pictures, self._kept(domain, pictures)))

    def _kept(self, domain: Encoding, pictures: Pictures) -> dict[str, Tensor]:
        """What is kept of every picture, from the file if there is one."""
        if self.folder is None:
            return self._encoded(domain, pictures)
        path = self.folder / f"latents-{_name(domain, pictures)}.safetensors"
        if not path.is_file():
            logger.warning("first pass: %d pictures encoded into %s", len(pictures), path)
            found = self._encoded(domain, pictures)
            with written_whole(path) as partial:
                save_tensors(found, partial)
        return read_tensors(path)[0]

    @torch.no_grad()
    def _encoded(self, domain: Encoding, pictures: Pictures) -> dict[str, Tensor]:
        found: list[dict[str, Tensor]] = []
        for first in range(0, len(pictures), self.batch_size):
            numbers = range(first, min(first + self.batch_size, len(pictures)))
            batch = torch.stack([pictures.picture(number) for number in numbers])
            found.append({name: value.cpu() for name, value in domain.kept(batch).items()})
        return {name: torch.cat([one[name] for one in found]) for name in found[0]}


class Kept:
    """Examples with what was kept where the pictures were.

    Args:
        pictures: whose captions and labels they keep.
        kept: of each picture, one a row.
    """

    def __init__(self, pictures: Pictures, kept: dict[str, Tensor]):
        self.pictures, self.kept, self.labels = pictures, kept, pictures.labels

    def __len__(self) -> int:
        return len(self.pictures)

    def example(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """See :class:`~multidiff.training.batches.Examples`."""
        index = self.pictures.stand_in(index)
        example = {
            **{name: value[index] for name, value in self.kept.items()},
            "caption": self.pictures.caption_of(index, rng),
            "name": f"{self.pictures.source.path}[{index}]",
        }
        if self.labels is not None:
            example["label"] = int(self.labels[index])
        return example


def _name(domain: Encoding, pictures: Pictures) -> str:
    found = hashlib.sha256(f"{pictures.fingerprint()} {domain.pad_to}".encode())
    for name, tensor in domain.autoencoder.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().float().cpu().numpy().tobytes())
    return found.hexdigest()[:16]

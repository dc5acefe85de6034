"""A first pass over pictures: their latents, kept on disk, so that training encodes none."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from multidiff.errors import InputError
from multidiff.files import written_whole
from multidiff.image.data import Pictures
from multidiff.image.diffusion import PictureDiffusion
from multidiff.image.domains import LatentDomain
from multidiff.image.picture import to_unit
from multidiff.weights import read_tensors, save_tensors

logger = logging.getLogger(__name__)


class Shuffled(Protocol):
    """Batches that can be made of other examples in the same order."""

    examples: Any

    def over(self, examples: Any) -> Any:
        """The same batches of other examples."""
        ...


class LatentCache:
    """Encodes every picture once and trains on what was kept.

    The encoder's Gaussian is kept, not a draw from it, so training sees new draws in every
    epoch as it would without the cache. The file is named after the pictures and the
    autoencoder's weights: when either changes, another one is made.

    Args:
        folder: where the latents are kept; in memory only where not given.
        batch_size: pictures encoded at a time.
    """

    def __init__(self, folder: str | None = None, batch_size: int = 64):
        self.folder = None if folder is None else Path(folder)
        self.batch_size = batch_size

    def __call__(self, model: PictureDiffusion, batches: Shuffled) -> Any:
        """The same batches, of latents.

        Raises:
            InputError: if the model has no latents, or the pictures are changed at each visit.
        """
        domain, pictures = model.domain, batches.examples
        if not isinstance(domain, LatentDomain) or not isinstance(pictures, Pictures):
            raise InputError("LatentCache: only a LatentDomain on Pictures has latents to keep")
        if pictures.flip:
            raise InputError("LatentCache: kept latents cannot be flipped; set flip: false")
        return batches.over(Latents(pictures, *self._kept(domain, pictures)))

    def _kept(self, domain: LatentDomain, pictures: Pictures) -> tuple[Tensor, Tensor]:
        """Mean and log variance of every picture, from the file if there is one."""
        if self.folder is None:
            return self._encoded(domain, pictures)
        path = self.folder / f"latents-{_name(domain, pictures)}.safetensors"
        if not path.is_file():
            logger.warning("first pass: %d pictures to latents in %s", len(pictures), path)
            mean, log_variance = self._encoded(domain, pictures)
            with written_whole(path) as partial:
                save_tensors({"mean": mean, "log_variance": log_variance}, partial)
        tensors, _ = read_tensors(path)
        return tensors["mean"], tensors["log_variance"]

    @torch.no_grad()
    def _encoded(self, domain: LatentDomain, pictures: Pictures) -> tuple[Tensor, Tensor]:
        found = []
        for first in range(0, len(pictures), self.batch_size):
            numbers = range(first, min(first + self.batch_size, len(pictures)))
            batch = torch.stack([pictures.picture(number) for number in numbers])
            gaussian = domain.gaussian(to_unit(batch))
            found.append((gaussian.mean.cpu(), gaussian.log_variance.cpu()))
        means, log_variances = zip(*found, strict=True)
        return torch.cat(means), torch.cat(log_variances)


class Latents:
    """Examples with latents where the pictures were.

    Args:
        pictures: whose captions and labels they keep.
        mean: of the encoder's Gaussians, one a row.
        log_variance: of the same.
    """

    def __init__(self, pictures: Pictures, mean: Tensor, log_variance: Tensor):
        self.pictures, self.mean, self.log_variance = pictures, mean, log_variance

    def __len__(self) -> int:
        return len(self.pictures)

    def example(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """See :class:`~multidiff.training.batches.Examples`."""
        index = self.pictures.stand_in(index)
        return {
            "latent_mean": self.mean[index],
            "latent_log_variance": self.log_variance[index],
            "caption": self.pictures.caption_of(index, rng),
            "name": f"{self.pictures.source.path}[{index}]",
        }


def _name(domain: LatentDomain, pictures: Pictures) -> str:
    found = hashlib.sha256(f"{pictures.fingerprint()} {domain.pad_to}".encode())
    for name, tensor in domain.autoencoder.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().float().cpu().numpy().tobytes())
    return found.hexdigest()[:16]

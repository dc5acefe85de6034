"""Images of one subject, with images of its class beside them (Ruiz et al. 2022, DreamBooth)."""

from __future__ import annotations

from typing import Any

import numpy as np

from multidiff.image.data.images import Black, Images
from multidiff.utils.fingerprint import Fingerprint


class DreamBooth:
    """Few images of a subject, and images of its class that keep what the model knew.

    The paper adds the loss of a class image, with a weight, to that of each own image. Here each
    example is a class image with the probability that makes the expected loss the same but for a
    constant factor: half of them with weight 1.

    Args:
        images: images of the subject.
        prompt: their caption, with a rare word for the subject: "a photo of sks dog".
        prior: images of the class, which the untuned model generated; None without.
        prior_prompt: their caption: "a photo of a dog". Empty for the captions that they have,
            where several prompts of the model are to be kept.
        prior_weight: weight of a class image against an own image.

    Raises:
        ValueError: if there are class images without captions, or a caption without class images,
            or the weight is negative.
    """

    def __init__(
        self,
        images: Images,
        prompt: str,
        prior: Images | None = None,
        prior_prompt: str = "",
        prior_weight: float = 1.0,
    ):
        if (prior is None and prior_prompt) or prior_weight < 0:
            raise ValueError(
                f"prior_prompt {prior_prompt!r}, prior_weight {prior_weight:g}: give class images, "
                "prior, and a weight from 0"
            )
        if prior is not None and not (prior_prompt or _has_captions(prior)):
            raise ValueError("prior: the class images have no captions; give prior_prompt")
        self.images, self.prompt = images, prompt
        self.prior, self.prior_prompt, self.prior_weight = prior, prior_prompt, prior_weight
        self.labels = None

    def __len__(self) -> int:
        return len(self.images)

    def example(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """See :class:`~multidiff.data.batches.Examples`: an own image or, in its place, another.

        Labels are left out: only one of the two sources may have them.
        """
        if self.prior is None or rng.random() >= self.prior_weight / (1 + self.prior_weight):
            found, prompt = self.images.example(index, rng), self.prompt
        else:
            found = self.prior.example(int(rng.integers(len(self.prior))), rng)
            prompt = self.prior_prompt or found["caption"]
        return {**{k: v for k, v in found.items() if k != "label"}, "caption": prompt}

    def data_fingerprint(self) -> dict[str, Fingerprint]:
        """Return the fingerprints of both sources."""
        prior = {} if self.prior is None else {"prior": self.prior.source.fingerprint()}
        return {**self.images.data_fingerprint(), **prior}


def _has_captions(images: Images) -> bool:
    """Return whether images have captions; in a dry run they are not read."""
    is_dry = isinstance(images.source, Black)
    return is_dry or bool(images.caption_of(0, np.random.default_rng(0)))

"""Control of repetition in generated tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from multidiff.core.protocols import Condition, Denoiser, Level
from multidiff.text.data.vocabulary import FIRST


@dataclass(frozen=True)
class RepetitionPenalty:
    """Denoiser that makes tokens less likely where they are already in the text.

    Their log probability is multiplied by the penalty (Keskar et al. 2019, on log probabilities
    instead of logits, whose zero is arbitrary). Masks that are lifted in one step do not see each
    other. PAD, END and UNKNOWN are exempt.

    Attributes:
        denoiser: the denoiser, perhaps guided.
        penalty: factor, above 1 to repeat less.
    """

    denoiser: Denoiser
    penalty: float

    def __call__(
        self, xt: Int[Tensor, "batch length"], level: Level, condition: Condition = None
    ) -> Float[Tensor, "batch length size"]:
        """Return log probabilities, not normalised."""
        log_probs = torch.log_softmax(self.denoiser(xt, level, condition), dim=-1)
        size = log_probs.shape[-1]
        present = torch.zeros(len(xt), size + 1, dtype=torch.bool, device=xt.device)
        present.scatter_(1, xt, True)
        present[:, :FIRST] = False
        factor = torch.where(present[:, None, :size], self.penalty, 1.0)
        return log_probs * factor

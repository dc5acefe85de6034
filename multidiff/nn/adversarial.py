"""Parts of adversarial training that do not depend on the medium."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call


def hinge_loss(real: Tensor, made: Tensor) -> Float[Tensor, " batch"]:
    """Return the discriminator's hinge loss from its scores of real and of generated items.

    Args:
        real: scores ``(batch, ...)`` of real items, to be above 1.
        made: scores of generated items, to be below -1.
    """
    wrong_real, wrong_made = F.relu(1 - real), F.relu(1 + made)
    return 0.5 * (wrong_real.flatten(1).mean(dim=1) + wrong_made.flatten(1).mean(dim=1))


def frozen_call(module: nn.Module, *inputs: Tensor) -> Any:
    """Return the output of a module whose weights get no gradient; its inputs do."""
    frozen = {name: weight.detach() for name, weight in module.named_parameters()}
    return functional_call(module, frozen, inputs)

"""Masks of states, 1 at real positions and 0 at padding."""

from __future__ import annotations

from jaxtyping import Bool
from torch import Tensor


def real_positions(mask: Tensor, state: Tensor) -> Bool[Tensor, " batch *state"]:
    """Return where a state is real, in its shape and on its device.

    Args:
        mask: not 0 at real positions, broadcastable to the state.
        state: a state ``(batch, ...)``, or what a network made of it.

    Raises:
        ValueError: if the mask cannot be broadcast to the state.
    """
    try:
        return mask.to(state.device).bool().expand_as(state)
    except RuntimeError as error:
        raise ValueError(
            f"mask: its shape {tuple(mask.shape)} does not broadcast to the state's "
            f"{tuple(state.shape)}; give dimensions of 1 where it is the same for all"
        ) from error

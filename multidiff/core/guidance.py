"""Classifier-free guidance: a denoiser wrapped around a denoiser.

A dropped (null) condition is written as zeros in floating-point tensors and as -1 in integer
ones (classes, tokens): training drops it for some samples, guidance for all. Boolean tensors stay:
they mark which positions of a state or a condition exist. For a condition with several other
parts, the droppable ones must be named: masks, edges, lengths and counts are structure, and zeros
there would describe a different structure.
Epsilon, x0 and v predictions can all be guided, since at a fixed noisy state they are affine
functions of each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Bool
from torch import Tensor

from multidiff.core.masks import real_positions
from multidiff.core.protocols import Condition, Denoiser, Level

# Keeps the rescaling finite where a prediction is constant.
SMALLEST_DEVIATION = 1e-8
# Keys of a dict, or positions in a tuple or list.
Parts = Sequence[str | int]


def map_condition(function: Callable[..., Tensor], *conditions: Condition) -> Any:
    """Return a function applied to each tensor of conditions with the same structure.

    Raises:
        TypeError: if a condition holds anything but tensors, dicts, tuples and lists.
    """
    first = conditions[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return function(*conditions)
    if isinstance(first, dict):
        return {key: map_condition(function, *(one[key] for one in conditions)) for key in first}
    if isinstance(first, tuple | list):
        return type(first)(
            map_condition(function, *parts) for parts in zip(*conditions, strict=True)
        )
    raise TypeError(f"a condition holds tensors, dicts, tuples and lists, not {type(first)}")


def parts_left_out(condition: Condition, parts: Parts | None = None) -> Parts:
    """Return the parts of a condition that may be dropped; empty if it is a single tensor.

    Args:
        condition: a tensor, or a dict, tuple or list of parts.
        parts: their keys or positions; None if the condition has only one candidate.

    Raises:
            ValueError: if the parts are ambiguous, or one is missing from the condition.
    """
    if not isinstance(condition, dict | tuple | list):
        return ()
    keys = [*condition] if isinstance(condition, dict) else [*range(len(condition))]
    if parts is not None:
        missing = [one for one in parts if one not in keys]
        if missing:
            raise ValueError(f"the condition has no part {missing[0]!r}: its parts are {keys}")
        return tuple(parts)
    found = [key for key in keys if not _is_structure(condition[key])]
    if len(found) > 1:
        raise ValueError(
            f"the condition has several parts, {found}: name those that may be dropped "
            "(masks, edges, lengths and counts must stay), in the domain's droppable or in "
            f"drop_condition={{{found[0]!r}: 0.1}} for training, in parts=[...] for guidance"
        )
    return tuple(found)


def _is_structure(part: Condition) -> bool:
    kinds: list[torch.dtype] = []
    map_condition(lambda one: kinds.append(one.dtype) or one, part)
    return all(kind == torch.bool for kind in kinds)


def check_droppable(
    condition: Condition, parts: Parts | None = None, use: str = "guidance by"
) -> None:
    """Reject a condition that stays the same when it is dropped: guidance would do nothing.

    Args:
        condition: a tensor, or a dict, tuple or list of parts.
        parts: keys of the parts to drop (see :func:`parts_left_out`).
        use: use of the dropped condition, for the message.

    Raises:
        ValueError: if all that may be dropped is masks (boolean tensors) or None, or it is
            ambiguous.
    """
    dropped, all_parts = condition, cast(Any, condition)
    if isinstance(condition, dict | tuple | list):
        dropped = [all_parts[key] for key in parts_left_out(condition, parts)]
    if _is_structure(dropped):
        named = f" of {[*condition]}" if isinstance(condition, dict) else ""
        raise ValueError(
            f"{use} the condition{named} would do nothing: what it may drop is only masks or "
            "None, which stay; add a part to guide by, or turn guidance off"
        )


def null_condition(condition: Condition, parts: Parts | None = None) -> Condition:
    """Return the null condition: zeros, or -1 for integers; boolean tensors stay.

    Args:
        condition: a tensor, or a dict, tuple or list of parts.
        parts: keys of the parts to drop (see :func:`parts_left_out`); the others stay.

    Raises:
        ValueError: if there are several parts and ``parts`` does not name the droppable ones.
    """

    def without(x: Tensor) -> Tensor:
        if x.dtype == torch.bool:
            return x
        return torch.zeros_like(x) if x.is_floating_point() else torch.full_like(x, -1)

    def left_out(_: Any, part: Condition) -> Condition:
        return map_condition(without, part)

    return _map_parts(left_out, condition, parts_left_out(condition, parts))


def drop_condition(
    condition: Condition,
    rows: Bool[Tensor, " batch"] | Mapping[Any, Bool[Tensor, " batch"]],
    parts: Parts | None = None,
) -> Condition:
    """Return the condition, dropped for the samples where ``rows`` is true.

    Args:
        condition: a tensor, or a dict, tuple or list of parts.
        rows: mask over samples for all droppable parts, or one mask for each part by its key.
        parts: keys of the droppable parts; see :func:`parts_left_out`.

    Raises:
        ValueError: if there are several parts and ``parts`` does not name the droppable ones, or
            none and ``rows`` names some; or if all that may be dropped is masks, which stay.
    """

    def chosen(key: Any, part: Condition) -> Condition:
        of = rows[key] if isinstance(rows, Mapping) else rows

        def choose(null: Tensor, given: Tensor) -> Tensor:
            where = of.to(given.device).reshape(-1, *[1] * (given.ndim - 1))
            return torch.where(where, null, given)

        return map_condition(choose, null_condition(part, _all_of(part)), part)

    if isinstance(rows, Mapping):
        parts = tuple(rows)
        if not isinstance(condition, dict | tuple | list):
            raise ValueError(
                f"drop_condition names parts, {[*parts]}, but the condition is a "
                f"{type(condition).__name__}: give one fraction"
            )
    if condition is not None:
        check_droppable(condition, parts, "drop_condition: training without")
    return _map_parts(chosen, condition, parts_left_out(condition, parts))


def _all_of(part: Condition) -> Parts | None:
    if isinstance(part, dict):
        return tuple(part)
    return tuple(range(len(part))) if isinstance(part, tuple | list) else None


def _map_parts(
    function: Callable[[Any, Condition], Condition], condition: Condition, parts: Parts
) -> Condition:
    if isinstance(condition, dict):
        return {key: function(key, x) if key in parts else x for key, x in condition.items()}
    if isinstance(condition, tuple | list):
        pairs = enumerate(condition)
        return type(condition)(function(key, x) if key in parts else x for key, x in pairs)
    return function(None, condition)


class ClassifierFreeGuidance:
    """``uncond + scale * (cond - uncond)`` (Ho & Salimans 2022), in one doubled batch.

    Args:
        denoiser: network trained with its condition dropped at random.
        scale: guidance scale; 1 is off, and then only the conditional prediction is evaluated.
        rescale: fraction, 0 to 1, by which the standard deviation of the guided prediction is
            brought back to that of the conditional one (Lin et al. 2023, section 3.4).
        mask: 1 at real positions of the state, 0 at padding, which ``rescale`` then leaves out of
            both deviations; broadcastable to the state ``(batch, ...)``. A dict for a joint state.
        negative: condition used in place of the null condition, such as a negative prompt.
        channels: number of channels (dimension 1) that are guided, all by default; the others
            are the conditional ones (learned variances are not guided).
        parts: keys of the droppable parts, for a condition with several parts.

    Raises:
        ValueError: if the scale is negative or ``rescale`` is not in [0, 1].
    """

    def __init__(
        self,
        denoiser: Denoiser,
        scale: float,
        *,
        rescale: float = 0.0,
        mask: Tensor | Mapping[str, Tensor] | None = None,
        negative: Condition = None,
        channels: int | None = None,
        parts: Parts | None = None,
    ):
        if scale < 0 or not 0 <= rescale <= 1:
            raise ValueError(f"guidance scale {scale:g} < 0 or rescale {rescale:g} not in [0, 1]")
        self.denoiser, self.scale, self.rescale = denoiser, scale, rescale
        self.mask, self.negative = mask, negative
        self.channels, self.parts = channels, parts

    def __call__(self, xt: Any, level: Level, condition: Condition = None) -> Any:
        """Return the guided prediction: a tensor, or a dict of them for a joint state.

        Raises:
            ValueError: if there is no condition to guide by, or only masks or None, or it has
                several parts and ``parts`` does not name the droppable ones; if the mask does
                not fit the prediction.
        """
        if self.scale == 1:
            return self.denoiser(xt, level, condition)
        if condition is None:
            raise ValueError(
                f"guidance of scale {self.scale:g} has no condition to guide by: pass one "
                "(condition=...), or turn guidance off"
            )
        negative = self.negative
        if negative is None:
            check_droppable(condition, self.parts)
            negative = null_condition(condition, self.parts)
        both = map_condition(lambda x, y: torch.cat([x, y]), condition, negative)
        output = self.denoiser(
            map_condition(lambda one: torch.cat([one, one]), xt), _twice(level), both
        )
        if isinstance(output, dict):
            masks: Any = self.mask or {}
            return {name: self._guided(one, masks.get(name)) for name, one in output.items()}
        return self._guided(output, self.mask)

    def _guided(self, output: Tensor, mask: Any) -> Tensor:
        cond, uncond = output.chunk(2)
        part = slice(None) if self.channels is None else slice(self.channels)
        guided = uncond[:, part] + self.scale * (cond - uncond)[:, part]
        guided = self._rescaled(guided, cond[:, part], mask)
        return guided if self.channels is None else torch.cat([guided, cond[:, part.stop :]], dim=1)

    def _rescaled(self, guided: Tensor, cond: Tensor, mask: Tensor | None) -> Tensor:
        if self.rescale == 0:
            return guided
        wanted, found = _deviation(cond, mask), _deviation(guided, mask)
        ratio = torch.where(found > SMALLEST_DEVIATION, wanted / found, 1.0)
        return guided * (1 + self.rescale * (ratio - 1))


def _deviation(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the standard deviation of each sample, where the mask is 1: ``(batch, 1, ...)``."""
    dims = tuple(range(1, x.ndim))
    if mask is None:
        return x.std(dim=dims, correction=0, keepdim=True)
    real = real_positions(mask, x)
    # In float16 sums over more than 65504 values would be infinite.
    wide = x.to(torch.promote_types(x.dtype, torch.float32)).masked_fill(~real, 0)
    count = real.sum(dim=dims, keepdim=True).clamp(min=1)
    mean = wide.sum(dim=dims, keepdim=True) / count
    away = (wide - mean).masked_fill(~real, 0)
    return (away.square().sum(dim=dims, keepdim=True) / count).sqrt().to(x.dtype)


def _twice(level: Level) -> Level:
    if isinstance(level, dict):  # of a joint state: a level for each part
        return type(level)({name: _twice(one) for name, one in level.items()})
    return type(level)(*(torch.cat([part, part]) for part in level.parts()))

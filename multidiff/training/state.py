"""Conversion between a run in memory and its checkpoint.

The state is gathered whole, under the names of the unwrapped task, whatever the engine made
of the module: a checkpoint does not depend on the number of processes that wrote it.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from multidiff.training.checkpoints import Checkpoint
from multidiff.training.ema import MovingAverage
from multidiff.training.shards import whole
from multidiff.utils.errors import InputError

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
# Weights that received no gradient have no moments.
MOMENTS = StateDictOptions(full_state_dict=True, cpu_offload=True, strict=False)
PREFIX = "task."  # prefix of the task in the module that computes its losses


def gathered(
    step: int,
    losses: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: MovingAverage,
) -> Checkpoint:
    """Return a checkpoint of the current state; every process must call it."""
    model: dict[str, Any] = get_model_state_dict(losses, options=WHOLE)
    moments: Any = get_optimizer_state_dict(losses, optimizer, options=WHOLE)
    tensors = {
        "model": {name.removeprefix(PREFIX): value for name, value in model.items()},
        "ema": {name: whole(value) for name, value in average.shadow.items()},
        "optimizer": {
            f"{parameter}/{name}": torch.as_tensor(value)
            for parameter, values in moments.get("state", {}).items()
            for name, value in values.items()
        },
    }
    numbers = {
        "ema_updates": average.updates,
        "optimizer": type(optimizer).__name__,
        "param_groups": moments.get("param_groups", []),
    }
    return Checkpoint(step, tensors, numbers)


def put_back(
    found: Checkpoint,
    losses: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: MovingAverage,
) -> None:
    """Restore a checkpoint's state.

    Raises:
        InputError: if it belongs to a different model, or to an optimizer whose state does not
            fit this run's, naming what changed.
    """
    model: Any = {f"{PREFIX}{name}": value for name, value in found.tensors["model"].items()}
    state: dict[str, dict[str, Tensor]] = {}
    for key, value in found.tensors["optimizer"].items():
        parameter, _, name = key.rpartition("/")
        state.setdefault(parameter, {})[name] = value
    moments: Any = {"state": state, "param_groups": found.numbers["param_groups"]}
    settings, kind = _settings(optimizer), type(optimizer).__name__
    try:
        set_model_state_dict(losses, model, options=WHOLE)
        changes = _optimizer_changes(found, optimizer)
        try:
            if state:  # plain SGD has none, and loading none fails
                set_optimizer_state_dict(losses, optimizer, moments, options=MOMENTS)
        except (RuntimeError, KeyError, ValueError, AssertionError) as error:
            if changes:
                raise _unfit(found, changes) from error
            raise
        # A setting may add a tensor that starts at zero (amsgrad); half of another class's state,
        # such as its count of steps alone, would be wrong without a word.
        is_other = found.numbers.get("optimizer", kind) != kind
        if state and is_other and not _has_names_of(optimizer, state):
            raise _unfit(found, changes)
        for group, own in zip(optimizer.param_groups, settings, strict=True):
            group.update(own)
        _fix_moments(losses, optimizer, set(state))
        for name, shadow in average.shadow.items():
            copy_whole(found.tensors["ema"][name], shadow)
    except (RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(
            f"the checkpoint of step {found.step} is of another model than this recipe's ({reason})"
        ) from error
    average.updates = found.numbers["ema_updates"]


def _optimizer_changes(found: Checkpoint, optimizer: torch.optim.Optimizer) -> list[str]:
    """Return how the optimizer differs from a checkpoint's: its class, or else its settings."""
    kind = type(optimizer).__name__
    before = found.numbers.get("optimizer", kind)
    if before != kind:
        return [f"{before} is now {kind}"]
    groups, saved = _settings(optimizer), found.numbers["param_groups"]
    if len(groups) != len(saved):
        return [f"{len(saved)} parameter groups are now {len(groups)}"]
    # The rate is that of a step, and how the update is computed does not matter.
    skipped = {"lr", "fused", "foreach", "capturable", "differentiable"}
    listed = [
        f"{name} {_plain(old.get(name))} is now {_plain(value)}"
        for now, old in zip(groups, saved, strict=True)
        for name, value in now.items()
        if name not in skipped and _plain(old.get(name)) != _plain(value)
    ]
    return [*dict.fromkeys(listed)]


def _plain(value: Any) -> Any:
    """Return a setting as it comes back from JSON."""
    return [*value] if isinstance(value, tuple) else value


def _has_names_of(optimizer: torch.optim.Optimizer, saved: dict[str, dict[str, Tensor]]) -> bool:
    """Return whether an optimizer's state has all its tensors from the saved one."""
    there = {name for values in saved.values() for name in values}
    return {
        name
        for values in optimizer.state.values()
        for name, value in values.items()
        if value is not None
    } <= there


def _unfit(found: Checkpoint, changes: list[str]) -> InputError:
    return InputError(
        f"the checkpoint of step {found.step} has the state of another optimizer than this "
        f"recipe's ({', '.join(changes)}): set trainer.optimizer and its options as they were, or "
        "train from its weights without --resume"
    )


def _settings(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Return the settings of each group, which are this run's and not a checkpoint's.

    They are the arguments of the optimizer's class. The rest of a group, such as the step size that
    Prodigy has found, belongs to its state.
    """
    taken = inspect.signature(type(optimizer)).parameters.keys() - {"params"}
    return [
        {name: value for name, value in group.items() if name in taken}
        for group in optimizer.param_groups
    ]


def _fix_moments(losses: nn.Module, optimizer: torch.optim.Optimizer, saved: set[str]) -> None:
    """Complete the optimizer state after loading.

    Weights without saved moments were given some, and a step count. Moments must have
    the memory layout of their weights: the fused update pairs them by offset.
    """
    for name, weight in losses.named_parameters():
        if name.removeprefix("module.") not in saved:
            optimizer.state.pop(weight, None)
        for key, value in optimizer.state.get(weight, {}).items():
            if value.shape == weight.shape:
                laid = torch.empty_like(weight, dtype=value.dtype, requires_grad=False)
                optimizer.state[weight][key] = laid.copy_(value)


def copy_whole(whole: Tensor, into: Tensor) -> None:
    """Copy a whole tensor into another one, or into the shard of it that this process has."""
    mesh = getattr(into, "device_mesh", None)
    if mesh is not None:
        from torch.distributed.tensor import distribute_tensor

        placements = into.placements  # type: ignore[attr-defined]
        whole = distribute_tensor(whole.to(into.device), mesh, placements)
    into.copy_(whole)

"""Train and eval modes: trained parts switch, frozen parts keep the mode they had."""

from __future__ import annotations

from torch import nn


class Modes:
    """The modes of a task's parts, recorded before training.

    A part is frozen if it has parameters and none of them is trained; everything inside it counts
    as frozen, such as the dropout of a frozen encoder.

    Args:
        module: the task.
    """

    def __init__(self, module: nn.Module):
        self.module = module
        self._frozen = [(part, part.training) for part in _frozen_parts(module)]
        self._training: bool | None = None

    def train(self) -> None:
        """Put the trained parts into train mode; frozen parts keep the mode they had."""
        if self._training is not True:
            self.module.train()
            for part, training in self._frozen:
                part.training = training
        self._training = True

    def eval(self) -> None:
        """Put all parts into eval mode, for validation and sampling."""
        self.module.eval()
        self._training = False

    def forget(self) -> None:
        """Set the modes again at the next step, after code that may have changed them."""
        self._training = None

    def finish(self) -> None:
        """Leave the trained parts in eval mode, and frozen ones as they were."""
        self.eval()
        for part, training in self._frozen:
            part.training = training


def _frozen_parts(module: nn.Module) -> list[nn.Module]:
    weights = [*module.parameters()]
    if weights and not any(one.requires_grad for one in weights):
        return [*module.modules()]
    return [part for child in module.children() for part in _frozen_parts(child)]

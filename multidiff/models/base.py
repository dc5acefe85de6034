"""What models of every wing have in common: a domain that says what lies beside their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn


class Lasting(Protocol):
    """A domain that is more than its weights."""

    def assets(self) -> dict[str, str]:
        """What must lie beside the weights, by name."""
        ...

    def load_assets(self, folder: Path) -> None:
        """Take that up."""
        ...


class DomainModel(nn.Module):
    """A model of media that a domain turns into states.

    Args:
        domain: which tells what must lie beside the weights.

    Attributes:
        domain: the same.
        name: of the folder that it was read from; empty where it is new.
        home: the folder or file that it was loaded from; None where it is new.
    """

    domain: Lasting

    def __init__(self, domain: Lasting):
        super().__init__()
        self.domain, self.name = domain, ""
        self.home: Path | None = None

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.parameters()).device

    def assets(self) -> dict[str, str]:
        """What must lie beside the weights."""
        return self.domain.assets()

    def load_assets(self, folder: Path) -> None:
        """Take that up, and the folder's name."""
        self.name = folder.name
        self.domain.load_assets(folder)

    def data_fingerprint(self) -> dict[str, Any]:
        """Return the fingerprints of what its assets are made from, by asset."""
        return getattr(self.domain, "data_fingerprint", dict)()

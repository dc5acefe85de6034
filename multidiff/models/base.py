"""Base of the models of every modality: a domain with files besides the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from multidiff.models.hub_model import HubModel
from multidiff.models.offload import Offload


class Lasting(Protocol):
    """A domain that has assets: files besides its weights."""

    def assets(self) -> dict[str, str]:
        """Return the assets by file name."""
        ...

    def load_assets(self, folder: Path) -> None:
        """Load the assets from a folder."""
        ...


class DomainModel(HubModel, nn.Module):
    """A model of media that a domain encodes as states.

    Args:
        domain: domain with assets.

    Attributes:
        domain: the domain.
        name: name of the folder that it was read from; empty for a new model.
        offload: what moves its parts to a device when their turn comes; None if all stay there.
    """

    domain: Lasting

    def __init__(self, domain: Lasting):
        super().__init__()
        self.domain, self.name = domain, ""
        self.offload: Offload | None = None

    @property
    def device(self) -> torch.device:
        """Device that the model computes on."""
        if self.offload is not None:
            return self.offload.device
        return next(self.parameters()).device

    def assets(self) -> dict[str, str]:
        """Return the domain's assets by file name."""
        return self.domain.assets()

    def load_assets(self, folder: Path) -> None:
        """Load the assets, and remember the folder's name."""
        self.name = folder.name
        self.domain.load_assets(folder)

    def data_fingerprint(self) -> dict[str, Any]:
        """Return the fingerprints of the sources of its assets, by asset."""
        return getattr(self.domain, "data_fingerprint", dict)()

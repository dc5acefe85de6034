"""Inception features, on which published FID and KID are measured."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multidiff.image.metrics.sets import Describe
from multidiff.models.weights import read_pickle, read_tensors
from multidiff.utils.errors import InputError
from multidiff.utils.packages import METRICS_EXTRA, needs

FEATURES = "2048"


def inception_features(weights: Path, device: str | torch.device = "cpu") -> Describe:
    """Return a function for FID's and KID's 2048 features (Heusel et al. 2017; Binkowski 2018).

    The network and its resizing are those of the package torch-fidelity, which equal
    the original in TensorFlow; grey images get three equal channels.

    Args:
        weights: ``weights-inception-2015-12-05-6726825d.pth`` of torch-fidelity's releases, or
            the same tensors as safetensors. Nothing is downloaded.
        device: device to compute on.

    Raises:
        InputError: if the package or the file is missing, or the file holds something else.
    """
    state = _state(Path(weights))
    network = _network_with(state, Path(weights)).to(device)

    @torch.no_grad()
    def describe(image: Tensor) -> Tensor:
        return network(image.expand(-1, 3, -1, -1).to(device))[0].float().cpu()

    return describe


def _state(weights: Path) -> Any:
    content = read_pickle(weights)
    return read_tensors(weights)[0] if content is None else content


def _network_with(state: Any, weights: Path) -> Any:
    with needs("torchvision", "FID by Inception", METRICS_EXTRA):
        import torchvision  # noqa: F401
    with needs("torch-fidelity", "FID by Inception", METRICS_EXTRA):
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    # The package unpickles any file it is given, code included: it gets our own copy.
    copy = io.BytesIO()
    torch.save(state, copy)
    copy.seek(0)
    file: Any = copy
    try:
        return FeatureExtractorInceptionV3("inception", [FEATURES], file)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise InputError(
            f"{weights}: holds other weights than torch-fidelity's Inception ({_told(error)}); "
            "use weights-inception-2015-12-05-6726825d.pth of its releases"
        ) from error


def _told(error: Exception) -> str:
    return " ".join(str(error).split())[:120]

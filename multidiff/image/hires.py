"""Hi-res fix: images are generated small, enlarged, and repainted in part at the larger size.

A network trained at one size repeats its subject at a larger one. The small image fixes the
composition, and the second pass adds detail to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from multidiff.image.canvas import Canvas
from multidiff.image.data.image_files import resized
from multidiff.image.diffusion.model import ImageDiffusion
from multidiff.utils.errors import InputError

LARGEST = 8.0


def enlarged(
    model: ImageDiffusion,
    prompts: Sequence[str],
    factor: float,
    strength: float,
    first: Mapping[str, Any],
    second: Mapping[str, Any],
) -> UInt8[Tensor, "count channels height width"]:
    """Generate images, enlarge them by Lanczos, and repaint them at the larger size.

    Args:
        model: the model.
        prompts: prompt of each image.
        factor: factor of the width and the height, above 1; both are rounded to valid lengths.
        strength: fraction of the enlarged images that noise replaces, 0 to 1.
        first: arguments of ``model.generate`` for the small images.
        second: arguments of ``model.generate`` for the large ones.

    Raises:
        InputError: if the factor is out of range, or the model cannot fulfil a request.
    """
    if not 1 < factor <= LARGEST:
        raise InputError(f"--hires {factor:g}: must be above 1, at most {LARGEST:g}; 1 is off")
    if not 0 < strength <= 1:
        raise InputError(f"--hires-strength {strength:g}: must be above 0, at most 1")
    small = model.generate(prompts, **first)
    multiple = model.domain.multiple
    height, width = (max(round(n * factor / multiple), 1) * multiple for n in small.shape[2:])
    large = torch.stack([resized(one, width, height) for one in small])
    return model.generate(prompts, canvas=Canvas(large, strength), **second)

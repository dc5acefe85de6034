"""Stable Diffusion's configuration in terms of a recipe, derived from the shapes of its tensors.

What shapes do not determine is as in the published models: eight attention heads at every level
if the transformers begin with a convolution (version 1), heads of 64 channels if they begin
with a linear map (version 2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from multidiff.core.gaussian.schedules import BetaSchedule
from multidiff.image.diffusion.embeddings import NUM_SIZES
from multidiff.image.stable_diffusion import naming
from multidiff.image.stable_diffusion.recipe import SCALING, SCHEDULE

HEADS, SIZE_OF_A_HEAD = 8, 64
SIZE_WAVES = 256


def unet_words(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the denoiser's values for these tensors."""
    own = _Shapes(naming.OUR_UNET, tensors)
    levels = naming.levels_of_ours(naming.within(naming.OUR_UNET, tensors))
    count = len(levels.attended)
    channels = [own[f"down_blocks.{i}.resnets.0.conv2.weight"][0] for i in range(count)]
    middle = "mid_block.attentions.0."
    is_linear = len(own[middle + "proj_in.weight"]) == 2
    found = {
        "in_channels": own["conv_in.weight"][1],
        "out_channels": own["conv_out.weight"][0],
        "channels": channels,
        "layers": levels.layers,
        "attention": ["cross" if one else "none" for one in levels.attended],
        "heads": [max(1, c // SIZE_OF_A_HEAD) if is_linear else HEADS for c in channels],
        "condition_width": own[middle + "transformer_blocks.0.attn2.to_k.weight"][1],
        "linear_projection": is_linear,
        # The same values in float32; in float16 version 2 overflows without upcasting.
        "upcast": is_linear,
        "groups": 32,
        "norm_eps": 1e-5,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
    }
    if naming.OUR_UNET + "add_embedding.linear_1.weight" not in tensors:
        return found
    names = naming.within(naming.OUR_UNET, tensors)
    return found | {
        "upcast": False,
        "blocks": [naming.transformer_blocks(names, level) or 1 for level in range(count)],
        "pooled_width": own["add_embedding.linear_1.weight"][1] - NUM_SIZES * SIZE_WAVES,
        "size_waves": SIZE_WAVES,
    }


def autoencoder_words(tensors: Mapping[str, Tensor], scaling: float = SCALING) -> dict[str, Any]:
    """Return the autoencoder's values for these tensors, and its scaling."""
    own = _Shapes(naming.OUR_AUTOENCODER, tensors)
    levels, layers = naming.autoencoder_size(naming.within(naming.OUR_AUTOENCODER, tensors))
    positions = (f"encoder.down_blocks.{i}.resnets.0.conv2.weight" for i in range(levels))
    return {
        "image_channels": own["encoder.conv_in.weight"][1],
        "channels": [own[position][0] for position in positions],
        "layers": layers,
        "latent_channels": own["post_quant_conv.weight"][0],
        "scaling": scaling,
        "groups": 32,
        "norm_eps": 1e-6,
    }


def text_words(
    tensors: Mapping[str, Tensor], is_open_clip: bool, prefix: str = naming.OUR_TEXT_ENCODER
) -> dict[str, Any]:
    """Return the values of the text encoder whose tensors' names have a prefix."""
    own = _Shapes(prefix, tensors)
    vocabulary, width = own["embeddings.token_embedding.weight"]
    return {
        "vocabulary": vocabulary,
        "width": width,
        "feed_forward": own["encoder.layers.0.mlp.fc1.weight"][0],
        "layers": naming.text_layers(naming.within(prefix, tensors)),
        "heads": max(1, width // SIZE_OF_A_HEAD),
        "activation": "gelu" if is_open_clip else "quick_gelu",
        "length": own["embeddings.position_embedding.weight"][0],
    }


def both_text_words(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the values of the two text encoders of version XL for these tensors."""
    return {
        "first": text_words(tensors, False, naming.OUR_FIRST),
        "second": text_words(tensors, True, naming.OUR_SECOND),
        "projection": len(tensors[naming.OUR_PROJECTION + ".weight"]),
        "pad": 0,
    }


class _Shapes:
    """Shapes of a component's tensors; a KeyError gives the full name of a missing one."""

    def __init__(self, prefix: str, tensors: Mapping[str, Tensor]):
        self.prefix, self.tensors = prefix, tensors

    def __getitem__(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[self.prefix + name].shape)


def schedule_of(betas: Tensor | None) -> dict[str, Any]:
    """Return the schedule of a file's table of betas, or the published one without a table."""
    if betas is None:
        return dict(SCHEDULE)
    table = betas.double().flatten()
    ends = [float(f"{float(beta):.5g}") for beta in (table[0], table[-1])]
    words = {**SCHEDULE, "steps": len(table), "first": ends[0], "last": ends[1]}
    regular = BetaSchedule.scaled_linear(len(table), *ends).betas
    if torch.allclose(regular, table, rtol=1e-3):
        return words
    return {"use": "BetaSchedule", "betas": table.tolist()}

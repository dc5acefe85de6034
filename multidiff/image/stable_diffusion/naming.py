"""Names of Stable Diffusion's parameters: diffusers', which are ours, and CompVis'.

A map is a dict from our module paths to theirs; a name is renamed by the longest path that it
begins with, so an inverted map is the map back. The numbers of levels and layers are
read from the names. Where the tensors differ too, ``tensors`` converts them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from multidiff.utils.errors import InputError

Pairs = dict[str, str]
Value = TypeVar("Value")

# Prefixes of the three networks: in a model of ours, and in a single file of theirs.
OUR_UNET, OUR_AUTOENCODER = "denoiser.", "domain.autoencoder."
OUR_TEXT = "domain.text_encoder."
OUR_TEXT_ENCODER = OUR_TEXT + "transformer."
# Stable Diffusion XL has two text encoders, and projects the output of the second.
OUR_FIRST, OUR_SECOND = OUR_TEXT + "first.transformer.", OUR_TEXT + "second.transformer."
OUR_PROJECTION = OUR_TEXT + "text_projection"
UNET, AUTOENCODER = "model.diffusion_model.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.text_model.", "cond_stage_model.model."
CLIP_XL = "conditioner.embedders.0.transformer.text_model."
OPEN_CLIP_XL = "conditioner.embedders.1.model."
PROJECTION_XL = OPEN_CLIP_XL + "text_projection"
# OpenCLIP has 24 layers, and Stable Diffusion 2 was trained on the output of the 23rd.
OPEN_CLIP_LAYERS = 23

UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
AUTOENCODER_RESNET = {
    **{name: name for name in ("norm1", "conv1", "norm2", "conv2")},
    "conv_shortcut": "nin_shortcut",
}
AUTOENCODER_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
    "self_attn.q_proj": "attn.in_proj.0",
    "self_attn.k_proj": "attn.in_proj.1",
    "self_attn.v_proj": "attn.in_proj.2",
}


def renamed(name: str, pairs: Mapping[str, str]) -> str | None:
    """Replace the longest path of a name that the map has; return None if it has none."""
    path = name
    while path not in pairs:
        path, dot, _ = path.rpartition(".")
        if not dot:
            return None
    return pairs[path] + name[len(path) :]


def inverted(pairs: Mapping[str, str]) -> Pairs:
    """Invert a map."""
    return {theirs: ours for ours, theirs in pairs.items()}


def sorted_out(
    tensors: Mapping[str, Value], pairs: Mapping[str, str]
) -> tuple[dict[str, Value], list[str]]:
    """Return renamed tensors, and the names that the map does not have."""
    new = {name: renamed(name, pairs) for name in tensors}
    known = {found: tensors[name] for name, found in new.items() if found is not None}
    return known, [name for name, found in new.items() if found is None]


def within(prefix: str, tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Return the tensors whose names begin with the prefix, by the rest of their names."""
    cut = len(prefix)
    return {name[cut:]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


# ------------------------------------------------------------------------------- UNet


@dataclass(frozen=True)
class Levels:
    """Structure of a UNet.

    Attributes:
        layers: number of residual blocks of each level on the way down.
        attended: whether each level has attention, finest first.
    """

    layers: int
    attended: tuple[bool, ...]


def levels_of_ours(names: Iterable[str]) -> Levels:
    """Return the levels of a UNet from our names."""
    names = set(names)
    count = _count(names, r"down_blocks\.(\d+)\.")
    attended = (f"down_blocks.{i}.attentions.0.norm.weight" in names for i in range(count))
    return Levels(_count(names, r"down_blocks\.0\.resnets\.(\d+)\."), tuple(attended))


def levels_of_theirs(names: Iterable[str]) -> Levels:
    """Return the levels of a UNet from CompVis' names.

    Raises:
        InputError: if the blocks do not form levels of one length.
    """
    names = set(names)
    blocks = _count(names, r"input_blocks\.(\d+)\.")
    halving = [i for i in range(blocks) if f"input_blocks.{i}.0.op.weight" in names]
    # Without the first convolution: each level's layers, and a downsampling block for all but the
    # last.
    layers = (halving[0] if halving else blocks) - 1
    if layers < 1 or blocks != (layers + 1) * (len(halving) + 1):
        raise InputError(f"{blocks} input blocks, {len(halving)} downsampling: not its UNet")
    firsts = range(1, blocks, layers + 1)
    return Levels(layers, tuple(f"input_blocks.{i}.1.norm.weight" in names for i in firsts))


def unet_map(levels: Levels) -> Pairs:
    """Map our paths in the UNet to CompVis'."""
    pairs = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "mid_block.attentions.0": "middle_block.1",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
    }
    pairs |= _inside("mid_block.resnets.0", "middle_block.0", UNET_RESNET)
    pairs |= _inside("mid_block.resnets.1", "middle_block.2", UNET_RESNET)
    last, each = len(levels.attended) - 1, levels.layers + 1
    for level in range(last + 1):
        ours = f"down_blocks.{level}"
        for layer in range(levels.layers):
            theirs = f"input_blocks.{each * level + layer + 1}"
            pairs |= _inside(f"{ours}.resnets.{layer}", f"{theirs}.0", UNET_RESNET)
            pairs[f"{ours}.attentions.{layer}"] = f"{theirs}.1"
        if level < last:
            pairs[f"{ours}.downsamplers.0.conv"] = f"input_blocks.{each * (level + 1)}.0.op"
        ours = f"up_blocks.{level}"
        for layer in range(each):
            theirs = f"output_blocks.{each * level + layer}"
            pairs |= _inside(f"{ours}.resnets.{layer}", f"{theirs}.0", UNET_RESNET)
            pairs[f"{ours}.attentions.{layer}"] = f"{theirs}.1"
        if level < last:
            position = 2 if levels.attended[last - level] else 1
            theirs = f"output_blocks.{each * level + levels.layers}.{position}.conv"
            pairs[f"{ours}.upsamplers.0.conv"] = theirs
    return pairs


def averaged_name(name: str) -> str:
    """Return CompVis' name of the moving average of a UNet's parameter: its name, no dots."""
    return "model_ema." + (UNET.removeprefix("model.") + name).replace(".", "")


# ------------------------------------------------------------------------ autoencoder


def autoencoder_map(levels: int, layers: int) -> Pairs:
    """Map our paths in the autoencoder to CompVis', whose decoder counts levels from the end.

    Args:
        levels: number of levels of resolution.
        layers: number of residual blocks of each in the encoder; the decoder has one more.
    """
    pairs = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    for half in ("encoder", "decoder"):
        pairs |= {
            f"{half}.conv_in": f"{half}.conv_in",
            f"{half}.conv_norm_out": f"{half}.norm_out",
            f"{half}.conv_out": f"{half}.conv_out",
        }
        ours, theirs = f"{half}.mid_block", f"{half}.mid"
        pairs |= _inside(f"{ours}.attentions.0", f"{theirs}.attn_1", AUTOENCODER_ATTENTION)
        pairs |= _inside(f"{ours}.resnets.0", f"{theirs}.block_1", AUTOENCODER_RESNET)
        pairs |= _inside(f"{ours}.resnets.1", f"{theirs}.block_2", AUTOENCODER_RESNET)
    for level in range(levels):
        down = (f"encoder.down_blocks.{level}", f"encoder.down.{level}")
        up = (f"decoder.up_blocks.{level}", f"decoder.up.{levels - 1 - level}")
        for (ours, theirs), count in ((down, layers), (up, layers + 1)):
            for layer in range(count):
                at = (f"{ours}.resnets.{layer}", f"{theirs}.block.{layer}")
                pairs |= _inside(*at, AUTOENCODER_RESNET)
        if level < levels - 1:
            pairs[f"{down[0]}.downsamplers.0.conv"] = f"{down[1]}.downsample.conv"
            pairs[f"{up[0]}.upsamplers.0.conv"] = f"{up[1]}.upsample.conv"
    return pairs


def autoencoder_size(names: Iterable[str]) -> tuple[int, int]:
    """Return the number of an autoencoder's levels and encoder layers, from either names."""
    names = set(names)
    at = r"encoder\.down(?:_blocks)?"
    layers = _count(names, at + r"\.0\.(?:resnets|block)\.(\d+)\.")
    return _count(names, at + r"\.(\d+)\."), layers


def autoencoder_map_of(names: Iterable[str]) -> Pairs:
    """Return the map for an autoencoder with these names, ours or CompVis'."""
    return autoencoder_map(*autoencoder_size(names))


# ----------------------------------------------------------------------- text encoder


def open_clip_map(layers: int) -> Pairs:
    """Map our paths in the text encoder to OpenCLIP's, its packed matrices split."""
    pairs = {
        "embeddings.token_embedding": "token_embedding",
        "embeddings.position_embedding.weight": "positional_embedding",
        "final_layer_norm": "ln_final",
    }
    for layer in range(layers):
        at = (f"encoder.layers.{layer}", f"transformer.resblocks.{layer}")
        pairs |= _inside(*at, OPEN_CLIP_LAYER)
    return pairs


def text_layers(names: Iterable[str]) -> int:
    """Return the number of layers of a text encoder, by our names or OpenCLIP's."""
    return _count(names, r"(?:encoder\.layers|transformer\.resblocks)\.(\d+)\.")


def transformer_blocks(names: Iterable[str], level: int) -> int:
    """Return the number of transformer blocks of a level of the UNet, by our names."""
    at = rf"down_blocks\.{level}\.attentions\.0\.transformer_blocks"
    return _count(names, at + r"\.(\d+)\.")


def _inside(ours: str, theirs: str, leaves: Mapping[str, str]) -> Pairs:
    return {f"{ours}.{mine}": f"{theirs}.{other}" for mine, other in leaves.items()}


def _count(names: Iterable[str], pattern: str) -> int:
    found = (re.match(pattern, name) for name in names)
    return max((int(one[1]) + 1 for one in found if one), default=0)

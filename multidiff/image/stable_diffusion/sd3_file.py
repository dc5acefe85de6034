"""Stable Diffusion 3 and 3.5 in one file, by the names of Stability AI.

Only files that hold text encoders as well, such as ``sd3_medium_incl_clips``, are whole models.
What shapes do not determine is as in the published models.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multidiff.config.recipe import to_yaml
from multidiff.image.stable_diffusion import naming
from multidiff.image.stable_diffusion.sd3_folder import (
    ENCODERS,
    TABLE,
    sd3_model,
    shifted_sampling,
    t5_names,
)
from multidiff.image.stable_diffusion.shapes import text_words
from multidiff.image.stable_diffusion.tensors import as_matrices, without_clip_prefix
from multidiff.image.tokenizers import T5_TOKENIZER
from multidiff.models.weights import Conversion, check_finite
from multidiff.utils.errors import InputError

logger = logging.getLogger(__name__)

MARK = "joint_blocks."
TEXT = "text_encoders."
TEXTS = {"first": f"{TEXT}clip_l.", "second": f"{TEXT}clip_g."}
T5 = f"{TEXT}t5xxl.transformer."
HEAD_WIDTH, SIDE, SHIFT = 64, 1024, 3.0
SCALING, MEAN = 1.5305, 0.0609  # of the latents
ENDS = {
    "pos_embed": "pos_embed.pos_embed",
    "x_embedder.proj": "pos_embed.proj",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "context_embedder": "context_embedder",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
BLOCK = {
    "x_block.adaLN_modulation.1": "norm1.linear",
    "x_block.mlp.fc1": "ff.net.0.proj",
    "x_block.mlp.fc2": "ff.net.2",
    "context_block.adaLN_modulation.1": "norm1_context.linear",
    "context_block.mlp.fc1": "ff_context.net.0.proj",
    "context_block.mlp.fc2": "ff_context.net.2",
    "context_block.attn.proj": "attn.to_add_out",
    "context_block.attn.ln_q": "attn.norm_added_q",
    "context_block.attn.ln_k": "attn.norm_added_k",
} | {
    f"x_block.{attention}.{theirs}": f"{attention}.{ours}"
    for attention in ("attn", "attn2")
    for theirs, ours in (("proj", "to_out.0"), ("ln_q", "norm_q"), ("ln_k", "norm_k"))
}
PACKED = {
    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}


def is_sd3_file(names: Iterable[str]) -> bool:
    """Return whether the names of a file's tensors are those of Stable Diffusion 3."""
    return any(name.startswith(naming.UNET + MARK) for name in names)


def read_sd3_file(
    path: Path, state: Mapping[str, Tensor], texts: Mapping[str, str], with_t5: bool = True
) -> Conversion:
    """Convert a file to a model.

    Args:
        path: the file.
        state: its tensors.
        texts: files of the tokenizers.
        with_t5: whether to take T5, if the file has it and its tokenizer is there.

    Raises:
        InputError: if parts are missing, or tensors have other shapes.
    """
    check_finite(state, path)
    if not all(any(name.startswith(start) for name in state) for start in TEXTS.values()):
        raise InputError(
            f"{path}: is Stable Diffusion 3 without its text encoders: convert the folder of the "
            "whole model, or a file that includes both of CLIP"
        )
    has_t5 = any(name.startswith(T5) for name in state)
    if has_t5 and with_t5 and T5_TOKENIZER not in texts:
        logger.warning(
            "%s: T5 is left out: there is no %s beside it (the tokenizer.json of tokenizer_3)",
            path, T5_TOKENIZER,
        )  # fmt: skip
    with_t5 = has_t5 and with_t5 and T5_TOKENIZER in texts
    try:
        tensors = _renamed(state, with_t5)
        recipe = {"model": _model(tensors, with_t5)}
    except KeyError as missing:
        raise InputError(
            f"{path}: is Stable Diffusion 3, but lacks {missing.args[0]}; download it again"
        ) from missing
    about = f"Stable Diffusion 3, predicts flow, with{'' if with_t5 else 'out'} T5"
    text = f"# Stable Diffusion 3, from {path.name}.\n{to_yaml(recipe)}"
    kept = {name: one for name, one in texts.items() if with_t5 or name != T5_TOKENIZER}
    return Conversion(text, tensors, about, kept)


def transformer_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the transformer's tensors by our names.

    Args:
        tensors: tensors by the file's names, without their common beginning.
    """
    layers = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith(MARK))
    swapped = (f"transformer_blocks.{layers - 1}.norm1_context.linear.", "norm_out.linear.")
    pairs, found = dict(ENDS), {}
    for layer in range(layers):
        ours, theirs = f"transformer_blocks.{layer}.", f"{MARK}{layer}."
        pairs |= {theirs + one: ours + own for one, own in BLOCK.items()}
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        inner = path.removeprefix(MARK).partition(".")[2] if path.startswith(MARK) else ""
        if inner in PACKED:
            block = f"transformer_blocks.{path.split('.')[1]}."
            parts = zip(PACKED[inner], tensor.chunk(3), strict=True)
            found |= {f"{block}{own}.{leaf}": part for own, part in parts}
            continue
        own = naming.renamed(name, pairs) or name
        # Scale and shift come in the other order where a stream ends.
        found[own] = torch.cat(tensor.chunk(2)[::-1]) if own.startswith(swapped) else tensor
    return found


def _renamed(state: Mapping[str, Tensor], with_t5: bool) -> dict[str, Tensor]:
    own = transformer_names(naming.within(naming.UNET, state))
    found = {naming.OUR_UNET + name: one for name, one in own.items()}
    theirs = naming.within(naming.AUTOENCODER, state)
    vae, unknown = naming.sorted_out(theirs, naming.inverted(naming.autoencoder_map_of(theirs)))
    known = (naming.UNET, naming.AUTOENCODER, TEXT)
    found |= {name: one for name, one in state.items() if not name.startswith(known)}
    found |= {naming.AUTOENCODER + name: theirs[name] for name in unknown}
    found |= {naming.OUR_AUTOENCODER + name: one for name, one in as_matrices(vae).items()}
    for one, start in TEXTS.items():
        prefix = f"{naming.OUR_TEXT}{one}"
        clip = without_clip_prefix(naming.within(f"{start}transformer.", state))
        width = len(clip["final_layer_norm.weight"])
        projection = clip.pop("text_projection.weight", torch.eye(width))
        clip = {name: tensor for name, tensor in clip.items() if name != "logit_scale"}
        found |= {f"{prefix}.transformer.{name}": tensor for name, tensor in clip.items()}
        found[f"{prefix}_projection.weight"] = projection
    if with_t5:
        start = f"{naming.OUR_TEXT}third.transformer."
        found |= {start + name: one for name, one in t5_names(naming.within(T5, state)).items()}
    return found


def _model(tensors: Mapping[str, Tensor], with_t5: bool) -> dict[str, Any]:
    """Return the recipe's model section, derived from the shapes of its tensors."""
    own = naming.within(naming.OUR_UNET, tensors)
    width, channels, patch, _ = own["pos_embed.proj.weight"].shape
    blocks = {name.split(".")[1] for name in own if name.startswith("transformer_blocks.")}
    denoiser = {
        "in_channels": channels,
        "patch": patch,
        "layers": len(blocks),
        "heads": width // HEAD_WIDTH,
        "head_width": HEAD_WIDTH,
        "condition_width": own["context_embedder.weight"].shape[1],
        "pooled_width": own["time_text_embed.text_embedder.linear_1.weight"].shape[1],
        "most_patches": round(own["pos_embed.pos_embed"].shape[1] ** 0.5),
        "dual_layers": sum(name.endswith(".attn2.to_q.weight") for name in own),
        "normalizes": "transformer_blocks.0.attn.norm_q.weight" in own,
    }
    vae = naming.within(naming.OUR_AUTOENCODER, tensors)
    levels, layers = naming.autoencoder_size(vae)
    resnets = (f"encoder.down_blocks.{level}.resnets.0.conv2.weight" for level in range(levels))
    autoencoder = {
        "image_channels": vae["encoder.conv_in.weight"].shape[1],
        "channels": [vae[name].shape[0] for name in resnets],
        "layers": layers,
        "latent_channels": vae["decoder.conv_in.weight"].shape[1],
        "scaling": SCALING,
        "groups": 32,
        "norm_eps": 1e-6,
        "shift": MEAN,
        "quant_conv": False,
    }
    encoders, projections = {}, []
    for one in ENCODERS:
        prefix = f"{naming.OUR_TEXT}{one}"
        words = text_words(tensors, one == "second", f"{prefix}.transformer.")
        encoders[one] = {"use": "TextEncoder", **words}
        projections.append(tensors[f"{prefix}_projection.weight"].shape[0])
    if with_t5:
        encoders["third"] = _t5_words(
            naming.within(f"{naming.OUR_TEXT}third.transformer.", tensors)
        )
    return sd3_model(denoiser, autoencoder, encoders, projections, SIDE, shifted_sampling(SHIFT))


def _t5_words(own: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return T5's section for these tensors."""
    vocabulary, width = own[TABLE].shape
    first = "block.0.layer.0.SelfAttention."
    buckets, heads = own[f"{first}relative_attention_bias.weight"].shape
    return {
        "use": "T5TextEncoder",
        "vocabulary": vocabulary,
        "width": width,
        "feed_forward": own["block.0.layer.1.DenseReluDense.wi_0.weight"].shape[0],
        "layers": len({name.split(".")[1] for name in own if name.startswith("block.")}),
        "heads": heads,
        "head_width": own[f"{first}q.weight"].shape[0] // heads,
        "buckets": buckets,
    }

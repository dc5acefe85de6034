"""Stable Diffusion 1.x, 2.x and XL in one file, by the names of CompVis and Stability AI.

Only the tensors describe the model: channels, layers and widths are derived from their
shapes. What shapes do not determine is as in the published models, and a model of ours that
differs cannot be written this way.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multidiff.image.stable_diffusion import naming
from multidiff.image.stable_diffusion.contents import stranger, tensors_in
from multidiff.image.stable_diffusion.recipe import (
    ENCODERS,
    SCALING,
    SCALING_XL,
    SCHEDULE,
    Words,
    check_input,
    zero_terminal,
)
from multidiff.image.stable_diffusion.shapes import (
    autoencoder_words,
    both_text_words,
    schedule_of,
    text_words,
    unet_words,
)
from multidiff.image.stable_diffusion.tensors import (
    as_convolutions,
    as_matrices,
    packed,
    transposed,
    unpacked,
)
from multidiff.models.weights import check_finite, some
from multidiff.utils.errors import InputError

logger = logging.getLogger(__name__)

# Two empty tensors by which some files state v prediction and zero terminal SNR.
VELOCITY, ZERO_TERMINAL = "v_pred", "ztsnr"
AVERAGES = "model_ema."
# Further contents of published files, not needed here: the schedule's tables, the discriminator
# of the autoencoder's training, and OpenCLIP's pooled output.
PASSED_OVER = (
    *("betas", "alphas_cumprod", "sqrt_", "log_one_minus_", "posterior_", "logvar"),
    *("lvlb_weights", "scale_factor", AVERAGES, VELOCITY, ZERO_TERMINAL),
    naming.AUTOENCODER + "loss.",
    *(naming.OPEN_CLIP + name for name in ("text_projection", "logit_scale", "attn_mask")),
    *(f"cond_stage_model.{name}" for name in ("text_projection", "logit_scale")),
    *(naming.OPEN_CLIP_XL + name for name in ("logit_scale", "attn_mask")),
    "denoiser.sigmas",
)
# What training programs leave in files beside Stable Diffusion: textual inversion embeddings,
# the autoencoder's moving average, and the rest of CLIP. Prompts do not need them.
LEFT_OVER = (
    "embedding_manager.",
    naming.AUTOENCODER + "model_ema.",
    naming.OPEN_CLIP_XL + "visual.",
    *(
        f"cond_stage_model.transformer.{name}"
        for name in ("vision_model.", "visual_projection.", "text_projection.", "logit_scale")
    ),
)
# The scheduler of published models of version XL, for files, which name none.
EULER = {"kind": "EulerDiscrete", "timestep_spacing": "leading", "steps_offset": 1}
NEEDED = (
    ("UNet", naming.UNET),
    ("autoencoder", naming.AUTOENCODER),
    ("text encoder", naming.CLIP, naming.OPEN_CLIP, naming.CLIP_XL),
)


def read_single_file(
    path: Path,
    prediction: str | None = None,
    ema: bool = False,
) -> tuple[Words, dict[str, Tensor]]:
    """Return a file's model in terms of a recipe, and its tensors by our names.

    Unknown ones keep theirs.

    Args:
        path: the file.
        prediction: epsilon or v, which shapes do not determine.
        ema: whether to use the moving average of the UNet.

    Raises:
        InputError: if it is another model, or lacks tensors, named in the message.
    """
    state = tensors_in(path, skip=() if ema else (AVERAGES,))
    other = stranger(state)
    if other is not None:
        raise InputError(
            f"{path}: is {other}; supported are whole models of Stable Diffusion 1, 2 and XL"
        )
    kept = unpacked(_kept(path, state))
    if ema:
        kept |= _averaged(path, kept, state)
    check_finite(kept, path)
    try:
        pairs = _map_of_file(kept)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    tensors, unknown = naming.sorted_out(kept, naming.inverted(pairs))
    tensors = transposed(as_matrices(tensors), naming.OUR_PROJECTION + ".weight")
    try:
        words = _words(path, tensors, state, prediction)
        lacking = [name for name in words.shapes() if name not in tensors]
    except KeyError as missing:
        lacking = [str(missing.args[0])]
    except InputError:
        raise
    except (IndexError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: its tensors do not have Stable Diffusion's shapes") from error
    if lacking:
        theirs = [naming.renamed(name, pairs) or name for name in lacking]
        beyond = f", and has {some(unknown)}, which its model does not" if unknown else ""
        raise InputError(f"{path}: lacks {some(theirs)}{beyond}; copy or download it again")
    return words, tensors | {name: kept[name] for name in unknown}


def _kept(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the model's tensors, the text encoder's with ``text_model.`` in their names."""
    kept: dict[str, Tensor] = {}
    left: list[str] = []
    beyond = f"{naming.OPEN_CLIP}transformer.resblocks.{naming.OPEN_CLIP_LAYERS}."
    bare = naming.CLIP.removesuffix("text_model.")
    for name, tensor in state.items():
        if name.startswith((*PASSED_OVER, beyond)) or name.endswith("position_ids"):
            continue
        if name.startswith(LEFT_OVER):
            left.append(name)
            continue
        if name.startswith(bare) and not name.startswith(naming.CLIP):
            name = naming.CLIP + name.removeprefix(bare)
        kept[name] = tensor
    for what, *prefixes in NEEDED:
        if not any(name.startswith(tuple(prefixes)) for name in kept):
            raise InputError(f"{path}: has no {what}; all of Stable Diffusion is needed")
    if left:
        kinds = [start.rstrip(".") for start in LEFT_OVER if any(n.startswith(start) for n in left)]
        logger.warning(
            "%s: skipped %d tensors of %s, which sampling does not use",
            path, len(left), ", ".join(kinds),
        )  # fmt: skip
    return kept


def _averaged(
    path: Path, kept: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    inner = naming.within(naming.UNET, kept)
    names = {naming.UNET + name: naming.averaged_name(name) for name in inner}
    lacking = [name for name in names.values() if name not in state]
    if lacking:
        raise InputError(f"{path}: has no moving average: lacks {some(lacking)}; remove --ema")
    return {name: state[averaged] for name, averaged in names.items()}


def _words(
    path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Tensor], prediction: str | None
) -> Words:
    denoiser, is_xl = unet_words(tensors), any(n.startswith(naming.OUR_SECOND) for n in tensors)
    autoencoder = autoencoder_words(tensors, SCALING_XL if is_xl else SCALING)
    check_input(path, denoiser["in_channels"], autoencoder["latent_channels"])
    if not is_xl and "pooled_width" in denoiser:
        raise InputError(
            f"{path}: its UNet reads a further embedding ({naming.UNET}label_emb), as that of "
            "Stable unCLIP, which is not supported"
        )
    text = both_text_words(tensors) if is_xl else text_words(tensors, _is_open_clip(state))
    is_second = not is_xl and text["activation"] == "gelu"
    if VELOCITY in state:
        prediction = prediction or "v"
    if prediction is None and is_second:
        raise InputError(
            f"{path}: is Stable Diffusion 2, whose tensors do not state its prediction: convert it "
            "with multidiff convert --prediction epsilon (512-base) or "
            "--prediction v (768)"
        )
    schedule, is_zero = schedule_of(state.get("betas")), ZERO_TERMINAL in state
    denoiser["time_steps"] = schedule.get("steps", len(schedule.get("betas", ())))
    side = 1024 if is_xl else 768 if is_second and prediction == "v" else 512
    return Words(
        denoiser,
        autoencoder,
        text,
        zero_terminal(schedule) if is_zero else schedule,
        prediction or "epsilon",
        pad=0 if is_second else text.get("first", text)["vocabulary"] - 1,
        size=(side, side),
        grid="trailing" if is_zero else "leading",
        zero_null=is_xl,
    ).sampled_by(EULER if is_xl and not is_zero else None)


def _is_open_clip(names: Iterable[str]) -> bool:
    return any(name.startswith(naming.OPEN_CLIP) for name in names)


# ----------------------------------------------------------------------------- writing


def single_file(model: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a model's tensors by CompVis' names.

    Args:
        model: the model's section of its resolved recipe.
        tensors: the model's tensors.

    Raises:
        InputError: if such a file cannot represent the model.
    """
    text, prediction = model["domain"]["text_encoder"], model["process"]["prediction"]
    is_xl = "second" in text
    is_open_clip = not is_xl and text["activation"] == "gelu"
    encoders = {"text_encoder": text} if not is_xl else {one: text[one] for one in ENCODERS}
    words = both_text_words(tensors) if is_xl else {}
    scaling = SCALING_XL if is_xl else SCALING
    for name, ours, theirs in (
        ("denoiser", model["denoiser"], unet_words(tensors)),
        ("autoencoder", model["domain"]["autoencoder"], autoencoder_words(tensors, scaling)),
        *(
            (one, encoders[one], words.get(one) or text_words(tensors, is_open_clip))
            for one in encoders
        ),
        ("schedule", model["process"]["schedule"], SCHEDULE),
    ):
        for key, value in theirs.items():
            if key != "upcast" and ours.get(key) != value:
                raise InputError(
                    f"{name}: {key} is {ours.get(key)}, but readers of single files assume "
                    f"{value}: write it with --to diffusers"
                )
    if prediction not in ("epsilon", "v"):
        raise InputError(f"readers of single files do not support prediction {prediction}")
    pairs = map_to_theirs(tensors, is_open_clip)
    theirs = transposed(as_convolutions(tensors), naming.OUR_PROJECTION + ".weight")
    written, unknown = naming.sorted_out(theirs, pairs)
    if unknown:
        raise InputError(f"a single file cannot store {some(unknown)}")
    if prediction == "v" and not is_open_clip:  # readers do not expect it for version 1
        written[VELOCITY] = torch.zeros(0)
    return packed(written)


# ------------------------------------------------------------------------------- names


def map_to_theirs(tensors: Mapping[str, Tensor], is_open_clip: bool) -> naming.Pairs:
    """Map our paths in a model to those in a single file.

    Args:
        tensors: the model's tensors.
        is_open_clip: whether the file has the text encoder by OpenCLIP's names.
    """
    text = naming.OUR_TEXT_ENCODER if is_open_clip else naming.OUR_SECOND
    return _whole_map(
        naming.levels_of_ours(naming.within(naming.OUR_UNET, tensors)),
        naming.autoencoder_map_of(naming.within(naming.OUR_AUTOENCODER, tensors)),
        naming.text_layers(naming.within(text, tensors)),
        is_xl=not is_open_clip,
    )


def _map_of_file(tensors: Mapping[str, Tensor]) -> naming.Pairs:
    """Return the same map for the file with these tensors.

    Raises:
        InputError: if the UNet's blocks do not form levels of one length.
    """
    is_xl = any(name.startswith(naming.OPEN_CLIP_XL) for name in tensors)
    text = naming.OPEN_CLIP_XL if is_xl else naming.OPEN_CLIP
    return _whole_map(
        naming.levels_of_theirs(naming.within(naming.UNET, tensors)),
        naming.autoencoder_map_of(naming.within(naming.AUTOENCODER, tensors)),
        naming.text_layers(naming.within(text, tensors)),
        is_xl=is_xl,
    )


def _whole_map(
    levels: naming.Levels, autoencoder: naming.Pairs, open_clip_layers: int, is_xl: bool
) -> naming.Pairs:
    """Return a map of all parts; version XL has OpenCLIP's text encoder beside the other."""
    parts = [
        (naming.OUR_UNET, naming.UNET, naming.unet_map(levels)),
        (naming.OUR_AUTOENCODER, naming.AUTOENCODER, autoencoder),
    ]
    pairs: naming.Pairs = {}
    open_clip = naming.open_clip_map(open_clip_layers)
    if not open_clip_layers:
        pairs[naming.OUR_TEXT_ENCODER.rstrip(".")] = naming.CLIP.rstrip(".")
    elif is_xl:
        pairs[naming.OUR_FIRST.rstrip(".")] = naming.CLIP_XL.rstrip(".")
        pairs[naming.OUR_PROJECTION + ".weight"] = naming.PROJECTION_XL
        parts.append((naming.OUR_SECOND, naming.OPEN_CLIP_XL, open_clip))
    else:
        parts.append((naming.OUR_TEXT_ENCODER, naming.OPEN_CLIP, open_clip))
    for ours, theirs, inner in parts:
        pairs |= {ours + mine: theirs + other for mine, other in inner.items()}
    return pairs

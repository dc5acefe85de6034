"""LoRA: low-rank changes of an image model's weights, merged into them.

Hu et al. 2021, section 4.1: a layer's weight ``W`` becomes ``W + scale * B A``, where ``A`` has few
rows and ``B`` few columns, and ``scale = alpha / rank``. Files name layers in several ways:
``unet.PATH.lora_A.weight`` (peft), ``unet.PATH.lora.down.weight`` and
``unet.PATH.processor.to_q_lora.down.weight`` (diffusers), ``lora_unet_PATH.lora_down.weight``
with underscores for dots (kohya), where PATH may also be CompVis'.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from multidiff.image.stable_diffusion import naming
from multidiff.models.views import shared_copy
from multidiff.models.weights import read_tensors, some
from multidiff.utils.errors import InputError
from multidiff.utils.files import file_digest
from multidiff.utils.readers import parse_json

logger = logging.getLogger(__name__)

# Ends of names that identify the matrix.
ENDINGS = {
    "down": re.compile(r"[._]lora(_A|[._]down|_linear_layer\.down)(\.default)?\.weight$"),
    "up": re.compile(r"[._]lora(_B|[._]up|_linear_layer\.up)(\.default)?\.weight$"),
    "alpha": re.compile(r"\.alpha$"),
}
# Other methods of changing a layer, for which the plain product would be wrong.
OTHERS = re.compile(r"\.(lora_|dora_|hada_|lokr_|diff).*$")
# Earlier versions of diffusers kept the matrices beside the layers, under short names.
BESIDE = re.compile(r"(\.processor)?\.to_(q|k|v|out)$")
UNET_LAYERS = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
TEXT_LAYERS = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "out": "out_proj"}
# Files that are no LoRA, or one whose plain product would be another change, by a part of a name.
KINDS = {
    "lora_magnitude_vector": "a DoRA",
    "dora_scale": "a DoRA",
    "hada_w": "a LoHa",
    "lokr_w": "a LoKr",
    ".oft_": "an OFT adapter",
    "ip_adapter.": "an IP-Adapter",
    "controlnet_cond_embedding": "a ControlNet",
    "control_model.": "a ControlNet",
    "input_hint_block": "a ControlNet",
    "emb_params": "a textual inversion, for --embedding",
}
OWNERS = re.compile(r"^((base_model\.model|unet|text_encoder|text_encoder_2|text_model)\.)+")
KOHYA = {
    "lora_unet_": naming.OUR_UNET,
    "lora_te_": naming.OUR_TEXT_ENCODER,
    "lora_te1_": naming.OUR_FIRST,
    "lora_te2_": naming.OUR_SECOND,
}
# Networks by the names of diffusers and peft; version XL has both of the last two.
PARTS = {
    "unet": (naming.OUR_UNET,),
    "text_encoder": (naming.OUR_TEXT_ENCODER, naming.OUR_FIRST),
    "text_encoder_2": (naming.OUR_SECOND,),
}
METADATA = "lora_adapter_metadata"


@dataclass(frozen=True)
class LoraReport:
    """Result of merging a file.

    Attributes:
        matched: paths of the layers that were changed.
        unmatched: names of tensors that fit no layer of the model.
    """

    matched: list[str]
    unmatched: list[str]


@dataclass(frozen=True)
class Merged:
    """A file whose changes are merged into a model's weights.

    Attributes:
        name: file name.
        weight: weight of the change.
        digest: sha256 of the file.
    """

    name: str
    weight: float
    digest: str


@dataclass
class _Change:
    """Tensors of a file for one layer."""

    down: Tensor | None = None
    up: Tensor | None = None
    alpha: float | None = None
    names: list[str] = field(default_factory=list)


def merge_lora(model: nn.Module, path: Path, weight: float = 1.0) -> LoraReport:
    """Merge a LoRA into a model's weights; nothing is changed if any part does not fit.

    Several add up, in any order. The file with the opposite weight undoes it up to rounding;
    :func:`set_loras` puts LoRAs on and takes them off exactly. Merged files are listed in
    ``model.loras``; merging a file again adds to it, with a warning.

    Args:
        model: model with a UNet as ``denoiser`` and optionally ``domain.text_encoder``.
        path: the safetensors file.
        weight: weight of the change; -1 undoes it.

    Returns:
        The layers that were changed, and the tensors that were not used, which are also
        logged as a warning.

    Raises:
        InputError: if nothing in the file belongs to the model, or something does not fit.
    """
    return _merge(model, path, weight, None)


def with_loras(model: nn.Module, loras: Sequence[tuple[Path, float]]) -> Any:
    """Return a view of a model with LoRAs merged, and leave the model as it is.

    The view has weights of its own in the layers that change; all others are the model's. Several
    threads can thus use one model with other LoRAs each.

    Args:
        model: see :func:`merge_lora`.
        loras: files and their weights.

    Raises:
        InputError: if a file does not fit.
    """
    view = shared_copy(model)
    vars(view)["loras"] = [*vars(model).get("loras", [])]
    for path, weight in loras:
        _merge(view, path, weight, None, is_view=True)
    return view


def _merge(
    model: nn.Module,
    path: Path,
    weight: float,
    kept: dict[str, Tensor] | None,
    is_view: bool = False,
) -> LoraReport:
    """Merge a LoRA.

    Args:
        model: the model.
        path: the file.
        weight: weight of the change.
        kept: receives the weights of the layers as they were, if it has none.
        is_view: whether changed layers get weights of their own, since others share theirs.
    """
    if not math.isfinite(weight):
        raise InputError(f"{path}: weight {weight:g}: must be a finite number such as 0.8")
    tensors, metadata = read_tensors(path)
    for piece, kind in KINDS.items():
        if any(piece in name for name in tensors):
            raise InputError(f"{path}: is {kind} ({piece}), which is not merged here")
    layers = _layers(model)
    changes, unmatched = _changes(tensors, _Names(model, layers))
    described = _told_by_peft(path, metadata)
    deltas: dict[str, Tensor] = {}
    for name, change in changes.items():
        if change.down is None or change.up is None:
            unmatched += change.names
            continue
        delta = _product(path, name, change.down, change.up, layers[name])
        deltas[name] = weight * _scale(path, name, change, described) * delta
    if not deltas:
        shown = some(list(tensors)) or "nothing"
        raise InputError(f"{path}: changes no layer of this model; its tensors are {shown}")
    broken = [name for name, delta in deltas.items() if not bool(torch.isfinite(delta).all())]
    if broken:
        raise InputError(
            f"{path}: {some(broken)}: has values that are not finite (NaN or infinite); copy or "
            "download it again, or use another"
        )
    with torch.no_grad():
        for name, delta in deltas.items():
            if kept is not None and name not in kept:
                kept[name] = layers[name].detach().clone()
            changed = layers[name].float() + delta.to(layers[name].device)
            if is_view:
                owner: Any = model.get_submodule(name)
                owner.weight = nn.Parameter(changed.to(layers[name].dtype), requires_grad=False)
            else:
                layers[name].copy_(changed)
    _note(model, path, weight)
    if unmatched:
        logger.warning("%s: %d tensors are not used: %s", path, len(unmatched), some(unmatched))
    return LoraReport(list(deltas), unmatched)


def set_loras(model: nn.Module, loras: Sequence[tuple[Path, float]]) -> list[LoraReport]:
    """Merge these LoRAs and no others: those of the last call are taken off, to the bit.

    The weights that they change are kept in memory as they were. What :func:`merge_lora` merged
    before the first call stays.

    Args:
        model: see :func:`merge_lora`.
        loras: files and their weights; empty for the model as it was.

    Raises:
        InputError: if a file does not fit; the model is then without those of the last call.
    """
    kept: dict[str, Tensor] = vars(model).setdefault("weights_without_loras", {})
    layers = _layers(model)
    with torch.no_grad():
        for name, own in kept.items():
            layers[name].copy_(own)
    kept.clear()
    own_loras = vars(model).setdefault("loras_of_its_own", [*vars(model).get("loras", [])])
    vars(model)["loras"] = [*own_loras]
    try:
        return [_merge(model, path, weight, kept) for path, weight in loras]
    except InputError:
        set_loras(model, [])
        raise


def _note(model: nn.Module, path: Path, weight: float) -> None:
    """Record in ``model.loras`` what is merged, and warn if a file is merged again."""
    digest = file_digest(path)
    merged: list[Merged] = vars(model).setdefault("loras", [])
    before = sum(one.weight for one in merged if one.digest == digest)
    if before * weight > 0:
        logger.warning(
            "%s: is merged already with weight %g; both add up to %g",
            path, before, before + weight,
        )  # fmt: skip
    others = [one for one in merged if one.digest != digest]
    own = [Merged(path.name, before + weight, digest)] if before + weight else []
    merged[:] = [*others, *own]


def _layers(model: nn.Module) -> dict[str, Tensor]:
    """Return the matrices and kernels of the UNet and the text encoder, by the layers' paths."""
    return {
        name.removesuffix(".weight"): parameter
        for name, parameter in model.named_parameters()
        if name.startswith((naming.OUR_UNET, naming.OUR_TEXT))
        and name.endswith(".weight")
        and parameter.ndim >= 2
    }


class _Names:
    """Lookup of the layer that a path in a file refers to."""

    def __init__(self, model: nn.Module, layers: Mapping[str, Tensor]):
        self.layers = layers
        unet = naming.within(naming.OUR_UNET, dict(model.named_parameters()))
        pairs = naming.unet_map(naming.levels_of_ours(unet))
        self.flat: dict[str, str] = {}
        for start, prefix in KOHYA.items():
            for inner in naming.within(prefix, layers):
                paths = [inner, f"text_model.{inner}"]
                if prefix == naming.OUR_UNET:
                    paths = [inner, naming.renamed(inner, pairs) or inner]
                for path in paths:
                    self.flat[start + path.replace(".", "_")] = prefix + inner
        if naming.OUR_PROJECTION in layers:
            self.flat["lora_te2_text_projection"] = naming.OUR_PROJECTION

    def find(self, path: str) -> str | None:
        """Return a layer's path in the model; None if the model does not have it."""
        if path in self.flat:
            return self.flat[path]
        is_text = path.startswith("text_encoder") or ".self_attn." in path or ".mlp.fc" in path
        short = TEXT_LAYERS if is_text else UNET_LAYERS
        part = "text_encoder" if is_text else "unet"
        part = "text_encoder_2" if path.startswith("text_encoder_2.") else part
        path = BESIDE.sub(lambda found: f".{short[found[2]]}", OWNERS.sub("", path))
        return next((one + path for one in PARTS[part] if one + path in self.layers), None)


def _changes(tensors: Mapping[str, Tensor], names: _Names) -> tuple[dict[str, _Change], list[str]]:
    """Return a file's changes by layer, and the names of the tensors that belong to none."""
    changes: dict[str, _Change] = {}
    strange: set[str] = set()
    unmatched: list[str] = []
    for name, tensor in tensors.items():
        kind, path = _taken_apart(name)
        layer = names.find(path)
        if layer is None:
            unmatched.append(name)
            continue
        change = changes.setdefault(layer, _Change())
        change.names.append(name)
        if kind == "alpha" and tensor.numel() == 1:
            change.alpha = float(tensor)
        elif kind in ("down", "up"):
            setattr(change, kind, tensor.float())
        else:
            strange.add(layer)
    for layer in strange:
        unmatched += changes.pop(layer).names
    return changes, unmatched


def _taken_apart(name: str) -> tuple[str, str]:
    """Return which matrix a name refers to (empty if neither), and the path of its layer."""
    for kind, ending in ENDINGS.items():
        found = ending.search(name)
        if found:
            return kind, name[: found.start()]
    return "", OTHERS.sub("", name)


def _product(path: Path, name: str, down: Tensor, up: Tensor, weight: Tensor) -> Tensor:
    """Return ``B A`` in the shape of the weight, for kernels too."""
    rank = down.shape[0] if down.ndim else 0
    fits = (
        rank > 0
        and up.shape == (weight.shape[0], rank, *[1] * (up.ndim - 2))
        and down.shape[1:2] == weight.shape[1:2]
        and down[0].numel() == weight[0].numel()
    )
    if not fits:
        raise InputError(
            f"{path}: {name}: {tuple(up.shape)} times {tuple(down.shape)} does not fit the "
            f"weight {tuple(weight.shape)}; it was made for another model"
        )
    return (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)


def _scale(path: Path, name: str, change: _Change, described: Mapping[str, Any]) -> float:
    """Return ``alpha / rank``, or ``alpha / sqrt(rank)`` if peft says so; 1 without alpha."""
    rank = 1 if change.down is None else change.down.shape[0]
    if change.alpha is not None:
        return change.alpha / rank
    part, prefix = next(
        (part, prefix)
        for part, prefixes in PARTS.items()
        for prefix in (*prefixes, naming.OUR_TEXT)
        if name.startswith(prefix)
    )
    inner, special = name.removeprefix(prefix), described.get(f"{part}.alpha_pattern") or {}
    usual = described.get(f"{part}.lora_alpha")
    alpha = special.get(inner, special.get(f"text_model.{inner}", usual))
    if alpha is None:
        return 1.0
    if not isinstance(alpha, int | float):
        raise InputError(f"{path}: its {METADATA} gives alpha {alpha!r}, which is not a number")
    return alpha / (rank**0.5 if described.get(f"{part}.use_rslora") else rank)


def _told_by_peft(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return peft's metadata on both networks: alpha, that of single layers, and the rule."""
    described = parse_json(metadata.get(METADATA, "{}"), f"{path}: its {METADATA}")
    return described if isinstance(described, dict) else {}

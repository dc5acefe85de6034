"""OpenAI's improved-diffusion and guided-diffusion: a pixel UNet in a ``.pt``, unconfigured.

The tensors tell channels, layers, attention, classes and whether the variance is learned. What they
do not tell (size, heads, order of queries and keys, schedule) is that of the published models, by
their channels, or an option.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from multidiff.config.recipe import to_yaml
from multidiff.image.stable_diffusion import naming
from multidiff.models.weights import check_finite
from multidiff.utils.errors import InputError

Order = Literal["legacy", "new"]
ATTENTION = {"norm": "group_norm", "proj_out": "to_out.0"}
COMPARED = ("time_embed.0.weight", "input_blocks.0.0.weight", "middle_block.1.qkv.weight")


@dataclass(frozen=True)
class Published:
    """Facts about a published model that its tensors do not tell.

    Attributes:
        size: width and height of its images.
        head_width: channels of an attention head; 0 if all levels have ``heads``.
        heads: number of attention heads then.
        order: order of queries, keys and values in their matrix.
        schedule: cosine or linear.
        steps: number of training steps.
    """

    size: int
    head_width: int = 64
    heads: int = 4
    order: Order = "legacy"
    schedule: Literal["linear", "cosine"] = "linear"
    steps: int = 1000


# By their channels: guided-diffusion at 64, 128, 256 and 512, then improved-diffusion.
KNOWN = {
    (192, 384, 576, 768): Published(64, order="new", schedule="cosine"),
    (256, 256, 512, 768, 1024): Published(128, head_width=0),
    (256, 256, 512, 512, 1024, 1024): Published(256),
    (128, 256, 256, 512, 512, 1024, 1024): Published(512),
    (128, 256, 256, 256): Published(32, head_width=0, schedule="cosine", steps=4000),
    (128, 256, 384, 512): Published(64, head_width=0, schedule="cosine", steps=4000),
    (128, 128, 256, 256, 512, 512): Published(256, head_width=0),
}


def is_openai(names: Iterable[str]) -> bool:
    """Return whether tensors have these projects' names."""
    return set(COMPARED) <= set(names)


def read_openai(
    path: Path,
    state: Mapping[str, Tensor],
    *,
    size: int | None = None,
    heads: int | None = None,
    schedule: str | None = None,
    order: Order | None = None,
) -> tuple[str, dict[str, Tensor], str]:
    """Return a file's model as a recipe, its tensors by our names, and a description.

    Args:
        path: the file, for messages.
        state: its tensors.
        size: width and height of images, if the model is not a published one.
        heads: number of attention heads at each level then.
        schedule: linear or cosine, instead of the known one.
        order: order of queries, keys and values: by heads (legacy), or all queries first (new).

    Raises:
        InputError: if tensors are missing or not finite, or an option is.
    """
    check_finite(dict(state), path)
    shape = _Shape(path, state)
    known = KNOWN.get(tuple(shape.channels))
    if known is None and (size is None or heads is None):
        raise InputError(
            f"{path}: is a UNet of guided-diffusion with channels {shape.channels}, which no "
            "published model has: say what its tensors do not, by --image-size and --heads (and "
            "--schedule cosine, if it is not linear)"
        )
    facts = known or Published(size or 64, head_width=0)
    counts = [heads or (c // facts.head_width if facts.head_width else facts.heads)
              for c in shape.channels]  # fmt: skip
    tensors = shape.tensors(counts, order or facts.order)
    model = _model(shape, facts, counts, size or facts.size, schedule or facts.schedule)
    about = "pixel diffusion of guided-diffusion, predicts epsilon"
    return f"# Pixel diffusion, from {path.name}.\n{to_yaml({'model': model})}", tensors, about


class _Shape:
    """Shape of a UNet, read from its tensors, and the way from their names to ours."""

    def __init__(self, path: Path, state: Mapping[str, Tensor]):
        self.path, self.state = path, state
        blocks = _count(state, "output_blocks")
        ups = [i for i in range(blocks) if self._up(i) is not None]
        self.layers = ups[0] if ups else blocks - 1  # one resnet more on the way up
        self.levels = len(ups) + 1
        per = self.layers + 1
        if self.layers < 1 or blocks != self.levels * per:
            raise InputError(f"{path}: its blocks form no levels of one length")
        names = [f"input_blocks.{1 + level * per}" for level in range(self.levels)]
        self.channels = [int(self[f"{one}.0.out_layers.3.weight"].shape[0]) for one in names]
        self.attended = [f"{one}.1.qkv.weight" in state for one in names]
        self.resamples = f"input_blocks.{per}.0.in_layers.0.weight" in state and self.levels > 1
        width = self["input_blocks.1.0.emb_layers.1.weight"].shape[0]
        self.scale_shift = width == 2 * self.channels[0]
        self.inputs = int(self["input_blocks.0.0.weight"].shape[1])
        self.outputs = int(self["out.2.weight"].shape[0])
        label = state.get("label_emb.weight")
        self.classes = None if label is None else len(label)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.state:
            raise InputError(f"{self.path}: lacks {name}; copy or download it again")
        return self.state[name]

    def _up(self, block: int) -> str | None:
        """Return the path of the module that enlarges the map after an output block."""
        for number in (1, 2):
            path = f"output_blocks.{block}.{number}"
            if {f"{path}.conv.weight", f"{path}.in_layers.0.weight"} & set(self.state):
                return path
        return None

    def tensors(self, heads: list[int], order: Order) -> dict[str, Tensor]:
        """Return the tensors by our names, with queries, keys and values apart.

        Unknown ones keep theirs.
        """
        pairs, counts = self._pairs(heads)
        found: dict[str, Tensor] = {}
        for name, tensor in self.state.items():
            mine = naming.renamed(name, pairs)
            if mine is None:
                found[name] = tensor
            elif ".qkv." in name:
                where = mine.replace(".qkv.", ".")
                stem, _, kind = where.rpartition(".")
                parts = _apart(tensor, counts[stem], order)
                found |= {f"{stem}.{key}.{kind}": part for key, part in parts.items()}
            else:
                is_matrix = tensor.ndim == 3 and "attentions." in mine
                found[mine] = tensor[:, :, 0] if is_matrix else tensor
        return found

    def _pairs(self, heads: list[int]) -> tuple[naming.Pairs, dict[str, int]]:
        """Return their paths with ours, and the number of heads of each attention of ours."""
        ours, per = naming.OUR_UNET, self.layers + 1
        pairs = {
            "time_embed.0": f"{ours}time_embedding.linear_1",
            "time_embed.2": f"{ours}time_embedding.linear_2",
            "label_emb": f"{ours}class_embedding",
            "input_blocks.0.0": f"{ours}conv_in",
            "out.0": f"{ours}conv_norm_out",
            "out.2": f"{ours}conv_out",
        }
        counts: dict[str, int] = {}

        def resnet(theirs: str, mine: str) -> None:
            leaves = naming.UNET_RESNET.items()
            pairs.update({f"{theirs}.{b}": f"{ours}{mine}.{a}" for a, b in leaves})

        def attention(theirs: str, mine: str, count: int) -> None:
            pairs.update({f"{theirs}.{b}": f"{ours}{mine}.{a}" for b, a in ATTENTION.items()})
            pairs[f"{theirs}.qkv"] = f"{ours}{mine}.qkv"
            counts[ours + mine] = count

        def resampler(theirs: str, mine: str, conv: str) -> None:
            resnet(theirs, mine)
            pairs[f"{theirs}.{conv}"] = f"{ours}{mine}.conv"

        for level in range(self.levels):
            down, up = f"down_blocks.{level}", f"up_blocks.{level}"
            back = self.levels - 1 - level  # the level of our coarsest-first block
            for layer in range(per):
                theirs = f"output_blocks.{level * per + layer}"
                resnet(f"{theirs}.0", f"{up}.resnets.{layer}")
                attention(f"{theirs}.1", f"{up}.attentions.{layer}", heads[back])
            for layer in range(self.layers):
                theirs = f"input_blocks.{1 + level * per + layer}"
                resnet(f"{theirs}.0", f"{down}.resnets.{layer}")
                attention(f"{theirs}.1", f"{down}.attentions.{layer}", heads[level])
            if level < self.levels - 1:
                resampler(f"input_blocks.{(level + 1) * per}.0", f"{down}.downsamplers.0", "op")
                enlarged = self._up(level * per + self.layers)
                resampler(str(enlarged), f"{up}.upsamplers.0", "conv")
        for number in (0, 2):
            resnet(f"middle_block.{number}", f"mid_block.resnets.{number // 2}")
        attention("middle_block.1", "mid_block.attentions.0", heads[-1])
        return pairs, counts


def _apart(tensor: Tensor, heads: int, order: Order) -> dict[str, Tensor]:
    """Return queries, keys and values of a packed matrix or bias."""
    flat = tensor.reshape(len(tensor), -1)
    width = len(tensor) // 3 // heads
    if order == "legacy":
        parts = flat.reshape(heads, 3, width, -1).transpose(0, 1)
    else:
        parts = flat.reshape(3, heads, width, -1)
    parts = [part.reshape(heads * width, -1) for part in parts]
    if tensor.ndim == 1:
        parts = [part[:, 0] for part in parts]
    return dict(zip(("to_q", "to_k", "to_v"), (one.contiguous() for one in parts), strict=True))


def _count(names: Iterable[str], prefix: str) -> int:
    found = [re.match(rf"{prefix}\.(\d+)\.", name) for name in names]
    return 1 + max((int(one[1]) for one in found if one), default=-1)


def _model(
    shape: _Shape, facts: Published, heads: list[int], size: int, schedule: str
) -> dict[str, Any]:
    domain: dict[str, Any] = {"use": "PixelDomain", "size": [size, size], "channels": shape.inputs}
    if shape.classes:
        domain["classes"] = [str(number) for number in range(shape.classes)]
    process = {
        "use": "GaussianProcess",
        "schedule": {"use": f"BetaSchedule.{schedule}", "steps": facts.steps},
        "prediction": "epsilon",
    }
    learns = shape.outputs == 2 * shape.inputs
    if learns:
        hybrid = {"objective": {"use": "HybridLoss"}, "times": {"use": "DiscreteTimes"}}
        process |= {"learns_variance": True, **hybrid}
    variance = {"variance_type": "learned"} if learns else {"variance_type": "fixed_large"}
    denoiser = {
        "in_channels": shape.inputs,
        "out_channels": shape.outputs,
        "channels": shape.channels,
        "layers": shape.layers,
        "attention": ["self" if one else "none" for one in shape.attended],
        "heads": heads,
        "classes": shape.classes,
        "time_steps": facts.steps,
        "scale_shift": shape.scale_shift,
        "resnet_resampling": shape.resamples,
    }
    return {
        "use": "ImageDiffusion",
        "domain": domain,
        "process": process,
        "denoiser": {"use": "UNet", **denoiser},
        # As their samples: ancestral, 250 of the steps with both ends, clipped.
        "sampling": {
            "steps": 250,
            "sampler": "scheduler",
            "timestep_spacing": "scheduler",
            "scheduler": {"kind": "DDPM", "clip_sample": True, **variance},
        },
    }

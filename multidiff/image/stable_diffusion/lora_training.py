"""Training of a LoRA for Stable Diffusion, written as diffusers and peft read it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from multidiff.core.task import DiffusionTask
from multidiff.image.stable_diffusion import naming
from multidiff.image.stable_diffusion.lora import METADATA
from multidiff.models.weights import save_tensors
from multidiff.nn.lora import Adapters
from multidiff.utils.files import atomic_write

FILE = "pytorch_lora_weights.safetensors"
# Beginnings of our paths, and of those in such files. CLIP's have one part more there.
THEIRS = {
    naming.OUR_FIRST: "text_encoder.text_model.",
    naming.OUR_SECOND: "text_encoder_2.text_model.",
    naming.OUR_TEXT_ENCODER: "text_encoder.text_model.",
    naming.OUR_UNET: "unet.",
}


@dataclass(frozen=True)
class ImageLoRA:
    """Training of low-rank changes of a model's layers in place of its weights.

    Attributes:
        rank: rank of each change.
        alpha: scale of the changes times the rank; the rank by default.
        layers: ends of the paths of the denoiser's layers that change: by default those of its
            attention, as in diffusers' and peft's examples.
        text_layers: the same of the text encoders, which do not change by default; "q_proj",
            "k_proj", "v_proj" and "out_proj" are those of their attention.

    Raises:
        ValueError: if the rank is less than 1.
    """

    rank: int = 4
    alpha: float | None = None
    layers: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    text_layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank {self.rank}: must be at least 1")

    @property
    def scale_times_rank(self) -> float:
        """Return ``alpha``."""
        return self.rank if self.alpha is None else self.alpha


class LoraTask(DiffusionTask):
    """Training of the low-rank changes of a model; everything else is frozen.

    Args:
        model: model with a domain, a process and a denoiser.
        lora: what is trained.

    Raises:
        ValueError: if it has layers of a text encoder, and the model has no text encoder.
    """

    def __init__(self, model: Any, lora: ImageLoRA):
        super().__init__(model.domain, model.process, model.denoiser, model.drop_condition)
        self.lora = lora
        whole: Any = nn.Module()
        domain: Any = nn.Module()
        encoder: nn.Module | None = getattr(model.domain, "text_encoder", None)
        if lora.text_layers and encoder is None:
            raise ValueError("lora.text_layers: the model has no text encoder; remove them")
        domain.text_encoder = encoder
        whole.denoiser, whole.domain = model.denoiser, domain
        layers = [*lora.layers, *lora.text_layers]
        self.adapters = Adapters(whole, layers, lora.rank, lora.scale_times_rank)
        if lora.text_layers and encoder is not None:
            parts: list[Any] = [*encoder.modules()]
            for part in parts:
                if hasattr(part, "trained"):
                    part.trained = True  # gradients pass through it

    def finish(self, folder: Path) -> list[str]:
        """Write the changes into a file of a folder, and add them to the model's weights.

        Returns:
            A line on the file.
        """
        path = folder / FILE
        tensors, metadata = lora_file(self.adapters, self.lora)
        with atomic_write(path) as partial:
            save_tensors(tensors, partial, metadata)
        self.adapters.merge(self)
        return [f"{path}: {len(self.adapters.items())} layers of rank {self.lora.rank}"]


def lora_file(adapters: Adapters, lora: ImageLoRA) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and metadata of a file by diffusers' and peft's names.

    Without the metadata readers take the rank for alpha, and a file with another alpha would change
    their model by another amount.

    Args:
        adapters: the changes.
        lora: their options.
    """
    tensors: dict[str, Tensor] = {}
    about: dict[str, Any] = {}
    for path, one in adapters.items():
        ours = next(start for start in THEIRS if path.startswith(start))
        name = THEIRS[ours] + path.removeprefix(ours)
        tensors[f"{name}.lora_A.weight"] = one.lora_A.weight.detach()
        tensors[f"{name}.lora_B.weight"] = one.lora_B.weight.detach()
        part = name.partition(".")[0]
        about |= {f"{part}.r": lora.rank, f"{part}.lora_alpha": lora.scale_times_rank}
        about[f"{part}.target_modules"] = [*(lora.layers if part == "unet" else lora.text_layers)]
    return tensors, {"format": "pt", METADATA: json.dumps(about, sort_keys=True)}

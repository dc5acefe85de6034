"""Recipes of text models around published networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multidiff.config.recipe import to_yaml
from multidiff.models.weights import Conversion
from multidiff.text.masked_lm.denoiser import SpecialTokens, token_buffers
from multidiff.text.masked_lm.tokenizer import Words, special_section

# Prefix of the network's tensors in a text model.
NETWORK = "denoiser.network."


def masked_section(
    words: Words,
    special: SpecialTokens,
    network: Mapping[str, Any],
    length: int,
    *,
    ends: bool = True,
    eps: float = 1e-3,
    block: int = 0,
) -> dict[str, Any]:
    """Return the section of a masked-diffusion text model.

    Args:
        words: its tokenizer.
        special: ids of the special tokens.
        network: section of the network.
        length: number of tokens of the longest text, END included.
        ends: whether texts end; running text does not.
        eps: fraction of the tokens that the schedule keeps at time 1.
        block: number of positions in a block; 0 without blocks.
    """
    size = words.vocabulary.size
    domain = {"use": "TokenDomain", "vocabulary": words.section(), "length": length, "ends": ends}
    schedule = {"use": "LogLinearMasks", "eps": eps}
    denoiser = {"use": "PretrainedDenoiser", "size": size, "network": dict(network)}
    process: dict[str, Any] = {"use": "MaskProcess", "size": size, "schedule": schedule}
    if block:
        process |= {"use": "BlockMaskProcess", "block": block}
    return {
        "use": "MaskedText",
        "domain": domain,
        "process": process,
        "denoiser": {**denoiser, "special": special_section(special)},
        "sampling": {"sampler": "confidence" if ends else "ancestral"},
    }


def conversion_of(
    source: Path,
    name: str,
    words: Words,
    model: dict[str, Any],
    tensors: dict[str, Tensor],
    never: set[int],
) -> Conversion:
    """Return a converted model, its buffers added to the network's tensors.

    Args:
        source: folder that it was read from.
        name: name of the network's class.
        words: its tokenizer.
        model: the recipe's section.
        tensors: tensors of the network and the lengths, by our names.
        never: ids that are never generated.
    """
    domain, denoiser = model["domain"], model["denoiser"]
    special = SpecialTokens(**denoiser["special"])
    answers = model["use"] == "PromptedText"
    size = denoiser["size"]
    buffers = token_buffers(words.numbers, special, size, never, ends=answers)
    tensors = tensors | {f"denoiser.{name}": one for name, one in buffers.items()}
    lengths, sources = domain["length"] + 1, domain.get("source_length", 0)
    tensors.setdefault("domain.lengths", torch.zeros(lengths))
    by_source = (1, lengths + sources) if sources else (0, lengths)
    tensors["domain.lengths_by_source"] = torch.zeros(by_source)
    recipe = f"# {name}, from {source.resolve().name}.\n{to_yaml({'model': model})}"
    return Conversion(recipe, tensors, f"{name}, {size} tokens", words.texts)

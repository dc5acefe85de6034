"""Conversion of published masked language models to models of ours, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from multidiff.models.weights import Conversion
from multidiff.nn.lora import merged_state
from multidiff.text.data.subwords import HuggingFaceVocabulary
from multidiff.text.data.tokenizer_file import CHAT_TEMPLATE, TOKENIZER
from multidiff.text.masked_lm.denoiser import SpecialTokens
from multidiff.text.masked_lm.families import CONFIG, READABLE, family_of
from multidiff.text.masked_lm.recipe import NETWORK, conversion_of, masked_section
from multidiff.text.masked_lm.tokenizer import MOST_POSITIONS, quiet, read_tokenizer
from multidiff.utils.errors import InputError
from multidiff.utils.files import atomic_write_dir
from multidiff.utils.packages import needs
from multidiff.utils.readers import read_json, reason_of
from multidiff.utils.report import Report

# Properties of a configuration that describe a file or a task, not the network.
UNREAD = {"architectures", "auto_map", "transformers_version", "torch_dtype", "dtype", "id2label",
          "label2id", "_name_or_path", "problem_type", "tokenizer_class"}  # fmt: skip
# Before the lengths of texts are trained, they have this mean.
MEAN_LENGTH = 32.0


def knows(source: Path) -> bool:
    """Return whether a folder holds a model of the transformers library.

    :func:`convert` reports what is recognised but cannot be used.
    """
    if not source.is_dir() or not (source / CONFIG).is_file():
        return False
    return not {"model_type", "architectures", "graph"}.isdisjoint(read_json(source / CONFIG))


def convert(source: Path, *, tokenizer: Path | None = None) -> Conversion:
    """Convert a folder of a masked language model to a masked-diffusion text model.

    Args:
        source: folder with ``config.json``, the weights and the tokenizer.
        tokenizer: folder of the tokenizer, if it is not beside the weights.

    Raises:
        InputError: if it is another kind of model, has no mask token, or is incomplete.
    """
    config = read_json(source / CONFIG)
    family = family_of(source, config)
    if family is not None:
        return family(source, config, tokenizer)
    _check_masked(source, config)
    words = read_tokenizer(tokenizer or source)
    if words.mask is None:
        raise InputError(
            f"{words.folder}: its tokenizer has no mask token, which masked diffusion needs; give "
            "the folder of a masked language model, such as BERT"
        )
    network, config = _pretrained(source)
    words.check_rows(network.get_output_embeddings().out_features)
    special, name = words.special(), type(network).__name__
    length = min(positions_of(network), words.longest) - len(special.start)
    tensors = {f"{NETWORK}model.{name}": one for name, one in _untied(network).items()}
    tensors["domain.lengths"] = -torch.arange(length + 1) / MEAN_LENGTH
    model = masked_section(words, special, {"use": "MaskedLM", "config": config}, length)
    return conversion_of(source, name, words, model, tensors, words.never)


def _check_masked(source: Path, config: Mapping[str, Any]) -> None:
    """Reject folders of other kinds of models, by name.

    Raises:
        InputError: if it is not a masked language model of transformers.
    """
    with needs("transformers", "a published language model"):
        from transformers.models.auto.modeling_auto import (
            MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
            MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        )

    kind, named = config.get("model_type"), str((config.get("architectures") or ["nameless"])[0])
    is_causal = named.endswith("CausalLM") or named == "BertLMHeadModel"
    if config.get("is_encoder_decoder"):
        raise InputError(f"{source}: is an encoder and decoder ({named}); read are {READABLE}")
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not is_causal:
        return
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise InputError(
            f"{source}: is a causal language model ({named}), which never saw a mask; give a "
            f"masked one: {READABLE}"
        )
    if "auto_map" in config:
        raise InputError(
            f"{source}: brings its own code (auto_map), which is not run; read without it are "
            f"{READABLE}"
        )
    raise InputError(f"{source}: is a {named} ({CONFIG}: model_type {kind!r}); read are {READABLE}")


# ------------------------------------------------------------------------------ weights


def _pretrained(source: Path) -> tuple[Any, dict[str, Any]]:
    """Return the network of a folder and its configuration."""
    from transformers import AutoModelForMaskedLM

    try:
        with quiet():
            network, report = AutoModelForMaskedLM.from_pretrained(
                str(source), local_files_only=True, trust_remote_code=False,
                dtype=torch.float32, output_loading_info=True,
            )  # fmt: skip
    except Exception as error:
        raise InputError(
            f"{source}: its weights cannot be read ({reason_of(error)}); copy or download it again"
        ) from error
    if report["missing_keys"]:
        raise InputError(
            f"{source}: lacks weights of a masked language model (such as "
            f"{min(report['missing_keys'])}); is it another kind of model, or incomplete?"
        )
    config = {key: value for key, value in network.config.to_diff_dict().items()
              if key not in UNREAD}  # fmt: skip
    return network, {"model_type": network.config.model_type, **config}


def _untied(network: nn.Module) -> dict[str, Any]:
    """Return a network's tensors, each once."""
    kept = {name for name, _ in network.named_parameters()}
    every = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    return {name: one for name, one in network.state_dict().items() if name not in every - kept}


def positions_of(network: Any) -> int:
    """Return the number of positions of a network of transformers."""
    most = getattr(network.config, "max_position_embeddings", None) or MOST_POSITIONS
    for name, one in network.named_modules():
        if name.endswith("position_embeddings") and isinstance(one, nn.Embedding):
            # RoBERTa and its kin count positions from behind the padding's number.
            most = one.num_embeddings - (0 if one.padding_idx is None else one.padding_idx + 1)
    return most


# ------------------------------------------------------------------------------- export


def export(
    model: nn.Module,
    folder: Path,
    destination: Path,
    *,
    recipe: Mapping[str, Any],
    to: Literal["transformers"],
    half: bool = False,
) -> Report:
    """Write the network of a text model as a folder of transformers.

    Args:
        model: the model.
        folder: its folder.
        destination: folder to write.
        recipe: the model's section of its resolved recipe.
        to: the format.
        half: whether to write float16.

    Raises:
        InputError: if the model has no network of transformers, or the system refuses.
    """
    kind = recipe["denoiser"]["use"]
    kind = recipe["denoiser"]["network"]["use"] if kind == "PretrainedDenoiser" else kind
    if kind not in ("MaskedLM", "OpenAttentionLM"):
        raise InputError(
            f"{folder}: its network is a {kind}, which transformers does not have; only models "
            "that were converted from it are written back"
        )
    denoiser: Any = model.get_submodule("denoiser")
    network = denoiser.network.model
    with atomic_write_dir(destination) as partial, quiet():
        state = merged_state(network)
        if half:
            state = {name: one.half() for name, one in state.items()}
        network.save_pretrained(partial, state_dict=state)
        _save_tokenizer(model, denoiser.special, partial)
    return Report(
        [f"{destination}: {type(network).__name__}, written for transformers"],
        {"destination": str(destination)},
    )


def _save_tokenizer(model: Any, special: SpecialTokens, folder: Path) -> None:
    """Write the tokenizer with its special tokens."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    vocabulary: HuggingFaceVocabulary = model.domain.vocabulary
    words = Tokenizer.from_str(vocabulary.assets()[TOKENIZER])
    around = {"cls_token": special.start[0], "sep_token": special.end} if special.start else {
        "eos_token": special.end}  # fmt: skip
    ids = {"mask_token": special.mask, "pad_token": special.pad, "unk_token": special.unknown}
    named = {name: words.id_to_token(one) for name, one in (ids | around).items()
             if one is not None}  # fmt: skip
    made = PreTrainedTokenizerFast(
        tokenizer_object=words,
        model_max_length=model.domain.length + model.domain.source_length + len(special.start),
        chat_template=vocabulary.assets().get(CHAT_TEMPLATE),
        **named,
    )
    made.save_pretrained(folder)

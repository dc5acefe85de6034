"""Published diffusion language models read without their code: MDLM, BD3-LM, SEDD, LLaDA, Dream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from multidiff.models.weights import Conversion, read_pickle, read_tensors
from multidiff.text.data.tokenizer_file import TOKENIZER
from multidiff.text.masked_lm.denoiser import SpecialTokens
from multidiff.text.masked_lm.recipe import NETWORK, conversion_of, masked_section
from multidiff.text.masked_lm.tokenizer import Words, read_tokenizer, special_section
from multidiff.utils.errors import InputError
from multidiff.utils.readers import read_json, reading

CONFIG = "config.json"
WEIGHTS, INDEX, PICKLE = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
READABLE = (
    "BERT, RoBERTa, DistilBERT, ModernBERT and other masked language models of transformers, MDLM, "
    "BD3-LM, absorbing SEDD, LLaDA and Dream"
)
UNIFORM = "replaces tokens instead of masking them (uniform diffusion)"
# Known families that are not read, by model_type.
REFUSED = {
    "duo": f"a Duo model, which {UNIFORM}",
    "udlm": f"a UDLM model, which {UNIFORM}",
    "diffusion_gemma": f"DiffusionGemma, which {UNIFORM}",
    "llada2_moe": "LLaDA 2, whose network is remote code only",
    "llada_moe": "LLaDA-MoE, whose network is remote code only",
}
# Longest prompt and answer of a model that answers prompts, and the default answer.
ANSWER, LEAST_PROMPT = 1024, 64
LLADA_NAMES = {
    "wte": "model.embed_tokens",
    "ln_f": "model.norm",
    "ff_out": "lm_head",
}
LLADA_BLOCK = {
    "attn_norm": "input_layernorm",
    "ff_norm": "post_attention_layernorm",
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "attn_out": "self_attn.o_proj",
    "ff_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "ff_out": "mlp.down_proj",
}
# Options of LLaDA's network that change the computation, with the values that Llama has.
LLADA_FIXED: dict[str, Any] = {
    "block_type": "llama", "activation_type": "silu", "layer_norm_type": "rms", "rope": True,
    "alibi": False, "include_bias": False, "include_qkv_bias": False,
    "attention_layer_norm": False, "scale_logits": False, "input_emb_norm": False,
}  # fmt: skip
# Keys of Qwen2's configuration that change the computation.
QWEN2_KEYS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "hidden_act", "max_position_embeddings", "rms_norm_eps",
    "tie_word_embeddings", "rope_theta", "rope_parameters",
)  # fmt: skip
DEFAULT_MASKS = {"llada": 126336, "dream": 151666}

Family = Callable[[Path, Mapping[str, Any], Path | None], Conversion]


def family_of(source: Path, config: Mapping[str, Any]) -> Family | None:
    """Return the function that converts a folder's family; None for any other.

    Raises:
        InputError: if the family is known and cannot be used.
    """
    kind = str(config.get("model_type", "")).lower()
    for name, about in REFUSED.items():
        if kind.replace("-", "_").startswith(name):
            raise InputError(f"{source}: is {about}; read are {READABLE}")
    if "graph" in config and "model_type" not in config:
        return _sedd
    return {"mdlm": _mdlm, "bd3lm": _mdlm, "llada": _llada, "dream": _dream}.get(kind)


# -------------------------------------------------------------------------- MDLM, SEDD


def _mdlm(source: Path, config: Mapping[str, Any], tokenizer: Path | None) -> Conversion:
    name = "BD3-LM" if config.get("block_size") else "MDLM"
    _check_fixed(source, config, {"adaln": True, "causal": False, "cross_attn": name == "BD3-LM"})
    with reading(source / CONFIG, f"has values that {name} never writes"):
        shape: dict[str, Any] = {
            "rows": int(config["vocab_size"]),
            "width": int(config["hidden_dim"]),
            "layers": int(config["n_blocks"]),
            "heads": int(config["n_heads"]),
            "level_width": int(config["cond_dim"]),
            "reads_level": bool(config.get("time_conditioning", False)),
        }
        length = int(config["model_length"])
        if name == "BD3-LM":
            shape |= {"block": int(config["block_size"]), "length": length}
    return _transformer(source, name, shape, length, tokenizer)


def _sedd(source: Path, config: Mapping[str, Any], tokenizer: Path | None) -> Conversion:
    with reading(source / CONFIG, "has values that SEDD never writes"):
        graph, model = config["graph"]["type"], config["model"]
        if graph != "absorb":
            raise InputError(f"{source}: is a SEDD model of graph {graph!r}, which {UNIFORM}")
        shape = {
            "rows": int(config["tokens"]) + 1,
            "width": int(model["hidden_size"]),
            "layers": int(model["n_blocks"]),
            "heads": int(model["n_heads"]),
            "level_width": int(model["cond_dim"]),
            "reads_level": True,
        }
        length = int(model["length"])
    return _transformer(source, "SEDD", shape, length, tokenizer)


def _transformer(
    source: Path, name: str, shape: dict[str, Any], length: int, tokenizer: Path | None
) -> Conversion:
    """Convert a model whose network is the diffusion transformer of MDLM."""
    words = read_tokenizer(tokenizer or source)
    mask = shape["rows"] - 1 if words.mask is None else words.mask
    end = words.tokenizer.eos_token_id
    special = SpecialTokens(mask, mask if end is None else end, (), end, None)
    words.check_rows(shape["rows"])
    tensors = {
        NETWORK + key.removeprefix("backbone."): tensor.float()
        for key, tensor in folder_tensors(source).items()
        if not key.endswith("rotary_emb.inv_freq") and not key.startswith("noise.")
    }
    network = {"use": "DDiT", **shape}
    block = shape.get("block", 0)
    model = masked_section(words, special, network, length, ends=False, block=block)
    return conversion_of(source, name, words, model, tensors, words.never)


# ------------------------------------------------------------------------ LLaDA, Dream


def _llada(source: Path, config: Mapping[str, Any], tokenizer: Path | None) -> Conversion:
    _check_fixed(source, config, LLADA_FIXED)
    with reading(source / CONFIG, "has values that LLaDA never writes"):
        heads = int(config["n_heads"])
        llama = {
            "model_type": "llama",
            "vocab_size": int(config.get("embedding_size") or config["vocab_size"]),
            "hidden_size": int(config["d_model"]),
            "intermediate_size": int(config["mlp_hidden_size"]),
            "num_hidden_layers": int(config["n_layers"]),
            "num_attention_heads": heads,
            "num_key_value_heads": int(config.get("n_kv_heads") or heads),
            "max_position_embeddings": int(config["max_sequence_length"]),
            "rms_norm_eps": float(config.get("rms_norm_eps", 1e-5)),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": float(config.get("rope_theta", 10_000.0)),
            },
            "tie_word_embeddings": bool(config.get("weight_tying", False)),
        }
    words = read_tokenizer(tokenizer or source, generated_end=True)
    tensors = {_llama_name(key): one for key, one in folder_tensors(source).items()}
    return _prompted(source, "LLaDA", config, llama, words, tensors, shift=False)


def _llama_name(key: str) -> str:
    """Return Llama's name of one of LLaDA's tensors."""
    parts = key.removeprefix("model.").removeprefix("transformer.").split(".")
    if parts[0] == "blocks" and len(parts) == 4 and parts[2] in LLADA_BLOCK:
        return f"model.layers.{parts[1]}.{LLADA_BLOCK[parts[2]]}.{parts[3]}"
    return ".".join([LLADA_NAMES.get(parts[0], parts[0]), *parts[1:]])


def _dream(source: Path, config: Mapping[str, Any], tokenizer: Path | None) -> Conversion:
    if config.get("use_sliding_window") or config.get("rope_scaling"):
        raise InputError(f"{source}: has sliding windows or scaled rotary positions, which Dream "
                         "has not; is it another model?")  # fmt: skip
    qwen = {"model_type": "qwen2", **{key: config[key] for key in QWEN2_KEYS if key in config}}
    theta = qwen.pop("rope_theta", None)
    if theta is not None:
        qwen["rope_parameters"] = {"rope_type": "default", "rope_theta": float(theta)}
    # Its own class of tokenizer is Qwen2's under another name.
    folder = tokenizer or source
    kind = "PreTrainedTokenizerFast" if (folder / TOKENIZER).is_file() else "Qwen2Tokenizer"
    words = read_tokenizer(folder, generated_end=True, kind=kind)
    return _prompted(source, "Dream", config, qwen, words, folder_tensors(source), shift=True)


def _prompted(
    source: Path,
    name: str,
    config: Mapping[str, Any],
    network: Mapping[str, Any],
    words: Words,
    tensors: Mapping[str, Tensor],
    *,
    shift: bool,
) -> Conversion:
    """Convert a causal network with open attention that answers prompts."""
    mask = config.get("mask_token_id", words.mask)
    mask = DEFAULT_MASKS[name.lower()] if mask is None else int(mask)
    words.check_rows(int(network["vocab_size"]))
    end, size = words.tokenizer.eos_token_id, words.vocabulary.size
    special = SpecialTokens(mask, end, (), end, words.tokenizer.unk_token_id)
    positions = int(network["max_position_embeddings"])
    answer = min(ANSWER, positions // 2)
    prompt = positions - answer
    dtype = next(iter(tensors.values())).dtype
    half = "bfloat16" if str(dtype) == "torch.bfloat16" else "float32"
    model = {
        "use": "PromptedText",
        "domain": {
            "use": "AnswerDomain",
            "vocabulary": words.section(),
            "length": answer,
            "source_length": prompt,
        },
        "process": {
            "use": "MaskProcess",
            "size": size,
            "schedule": {"use": "LogLinearMasks", "eps": 0.0},
        },
        "denoiser": {
            "use": "PretrainedDenoiser",
            "size": size,
            "network": {"use": "OpenAttentionLM", "config": dict(network), "shift": shift},
            "special": special_section(special),
            "sources": size,
            "source_length": prompt,
            "dtype": half,
        },
        "sampling": {"answer_length": min(128, answer)},
    }
    tied = network.get("tie_word_embeddings")
    named = {
        f"{NETWORK}model.{key}": one
        for key, one in tensors.items()
        if not (tied and key == "lm_head.weight")
    }
    return conversion_of(source, name, words, model, named, {mask})


def _check_fixed(source: Path, config: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    """Reject options of a network that change its computation."""
    for key, value in fixed.items():
        if config.get(key, value) != value:
            raise InputError(
                f"{source / CONFIG}: {key} is {config[key]!r}; read are models where it is "
                f"{value!r}"
            )


# ----------------------------------------------------------------------------- tensors


def folder_tensors(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a folder, whole, in parts, or in a pickle of tensors.

    Those of safetensors files are mapped from disk until they are used.

    Raises:
        InputError: if there are none, or a file is missing or damaged.
    """
    if (folder / INDEX).is_file():
        index = read_json(folder / INDEX)
        with reading(folder / INDEX, "is not an index of weights"):
            names = index["weight_map"]
            files = sorted({str(one) for one in names.values()})
        if any(Path(one).name != one for one in files):
            raise InputError(f"{folder / INDEX}: names files outside of its folder")
        return {key: one for file in files for key, one in read_tensors(folder / file)[0].items()}
    if not (folder / WEIGHTS).is_file() and (folder / PICKLE).is_file():
        return dict(read_pickle(folder / PICKLE))
    return read_tensors(folder / WEIGHTS)[0]

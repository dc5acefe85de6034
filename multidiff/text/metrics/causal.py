"""Texts read by a causal language model: their probability, and features of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from multidiff.utils.errors import InputError
from multidiff.utils.packages import needs


class CausalReading(NamedTuple):
    """Reading of texts by a causal language model.

    Attributes:
        nats: mean of minus the log probability of all tokens.
        features: last hidden state at each text's last token, from which MAUVE is computed.
    """

    nats: float
    features: Float[np.ndarray, "texts width"]


def causal_nats_per_token(texts: Sequence[str], path: str | Path) -> float:
    """Return the mean of minus the log probability of all tokens; see :func:`causal_reading`."""
    return causal_reading(texts, path).nats


def causal_reading(texts: Sequence[str], path: str | Path) -> CausalReading:
    """Return the mean of minus the log probability of all tokens, and features of the texts.

    Each text is read after the model's token for the beginning (or else for the end) of a text,
    so its first token counts as well; without such a token the first one is context only. The end
    of a text is not scored. Texts without tokens have no features.

    Args:
        texts: plain texts; the model's own tokenizer splits them.
        path: a folder with a model and tokenizer as ``transformers`` saves them. Nothing is
            downloaded.

    Raises:
        InputError: if the folder has no such model, or a text is too long for it.
        ValueError: if there is no token to score.
    """
    import torch

    tokenizer, model = _causal_model(Path(path))
    start = tokenizer.bos_token_id
    first = [token for token in (start, tokenizer.eos_token_id) if token is not None][:1]
    longest = getattr(model.config, "max_position_embeddings", None) or math.inf
    total, count, features = 0.0, 0, []
    for text in texts:
        tokens = first + tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if len(tokens) > longest:
            raise InputError(
                f"{path}: reads {longest} tokens at most, and {text[:40]!r}... has {len(tokens)}; "
                "score it in pieces"
            )
        if len(tokens) > 1:
            ids = torch.tensor([tokens])
            with torch.no_grad():
                found = model(input_ids=ids, output_hidden_states=True)
            ratios = found.logits[0, :-1].double().log_softmax(dim=-1)
            total -= float(ratios.gather(1, ids[0, 1:, None]).sum())
            count += len(tokens) - 1
            features.append(found.hidden_states[-1][0, -1].double().numpy())
    if not count:
        raise ValueError(f"{len(texts)} texts without a token to score")
    return CausalReading(total / count, np.stack(features))


def _causal_model(folder: Path) -> tuple[Any, Any]:
    """Return the tokenizer and the model of a folder."""
    import torch

    with needs("transformers", "perplexity by a causal language model"):
        from transformers import AutoModelForCausalLM, AutoTokenizer  # takes seconds to import

    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one with a causal language model")
    # Code in the folder is never run, without any prompt.
    options: Any = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, **options
        )
    except Exception as error:  # the library's many readers raise many types
        reason = (str(error) or type(error).__name__).strip().partition("\n")[0]
        raise InputError(
            f"{folder}: has no causal language model of transformers ({reason}); give a folder "
            "with config.json, model.safetensors and the tokenizer's files"
        ) from error
    model, report = loaded
    if report["missing_keys"]:
        raise InputError(
            f"{folder}: lacks weights of its model ({sorted(report['missing_keys'])[0]} is one); "
            "copy it again"
        )
    if _looks_ahead(model.eval()):
        raise InputError(
            f"{folder}: its model sees the words that it has to predict, as models that fill "
            "blanks do; give a causal language model"
        )
    return tokenizer, model


def _looks_ahead(model: Any) -> bool:
    """Return whether a first token's output changes with the second."""
    import torch

    with torch.no_grad():
        first = model(input_ids=torch.tensor([[0, 0], [0, 1]])).logits[:, 0]
    return not torch.allclose(first[0], first[1], rtol=1e-3, atol=1e-3)

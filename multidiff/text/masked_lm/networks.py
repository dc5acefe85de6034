"""Networks of the transformers library, from their configuration, without remote code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from multidiff.core.protocols import Level
from multidiff.utils.errors import InputError
from multidiff.utils.packages import needs
from multidiff.utils.readers import reason_of


class TokenNetwork(Protocol):
    """A network from ids of a tokenizer to logits of the token at each position."""

    def __call__(
        self,
        ids: Int[Tensor, "batch length"],
        attended: Bool[Tensor, "batch length"],
        level: Level,
    ) -> Float[Tensor, "batch length rows"]:
        """Return logits of each id.

        Args:
            ids: ids, of which some are the mask's.
            attended: false at padding.
            level: noise level of each sequence.
        """
        ...


class MaskedLM(nn.Module):
    """A masked language model of transformers: BERT, RoBERTa, DistilBERT, ModernBERT and others.

    Args:
        config: its configuration, as ``config.json`` has it; ``model_type`` names the class.

    Raises:
        InputError: if transformers has no such masked language model.
    """

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self.model = built("AutoModelForMaskedLM", config)
        self.register_state_dict_post_hook(_drop_ties)

    def forward(
        self,
        ids: Int[Tensor, "batch length"],
        attended: Bool[Tensor, "batch length"],
        level: Level,
    ) -> Float[Tensor, "batch length rows"]:
        """See :class:`TokenNetwork`; the level is not read."""
        return self.model(input_ids=ids, attention_mask=attended.long()).logits


class OpenAttentionLM(nn.Module):
    """A causal language model of transformers whose attention is open in both directions.

    LLaDA (Nie et al. 2025) is Llama trained this way, Dream (Ye et al. 2025) Qwen2.

    Args:
        config: its configuration, as ``config.json`` has it; ``model_type`` names the class.
        shift: whether the logits of a position are the network's at the one before, as in
            Dream, which was trained from an autoregressive model.

    Raises:
        InputError: if transformers has no such causal language model.
    """

    def __init__(self, config: dict[str, Any], shift: bool = False):
        super().__init__()
        self.model, self.shift = built("AutoModelForCausalLM", config), shift
        self.register_state_dict_post_hook(_drop_ties)

    def forward(
        self,
        ids: Int[Tensor, "batch length"],
        attended: Bool[Tensor, "batch length"],
        level: Level,
    ) -> Float[Tensor, "batch length rows"]:
        """See :class:`TokenNetwork`; the level is not read."""
        # Only a mask of four dimensions replaces the causal one.
        sees = attended[:, None, None, :].expand(-1, 1, ids.shape[1], -1)
        found = self.model(input_ids=ids, attention_mask=sees, use_cache=False).logits
        return torch.cat([found[:, :1], found[:, :-1]], dim=1) if self.shift else found


def built(auto: str, config: Mapping[str, Any]) -> Any:
    """Return a model of transformers with untrained weights.

    Args:
        auto: name of an ``AutoModel`` class.
        config: its configuration, with ``model_type``.

    Raises:
        InputError: if the configuration is not one of such a model.
    """
    with needs("transformers", "a published language model"):
        import transformers  # takes seconds to import

    options = dict(config)
    kind = options.pop("model_type", None)
    try:
        made = transformers.AutoConfig.for_model(kind, **options)
        return getattr(transformers, auto).from_config(
            made, trust_remote_code=False, attn_implementation="sdpa"
        )
    except Exception as error:  # the library checks values with exceptions of many types
        raise InputError(
            f"config of {kind!r}: transformers makes no {auto} of it ({reason_of(error)}); convert "
            "the model again"
        ) from error


def _drop_ties(module: nn.Module, state: Any, prefix: str, metadata: Any) -> None:
    """Leave one name of each weight that has several, such as a head tied to the embeddings."""
    every = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    for name in every - {name for name, _ in module.named_parameters()}:
        cast("dict[str, Tensor]", state).pop(prefix + name, None)

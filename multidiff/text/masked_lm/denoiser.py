"""A published network as a denoiser: our token numbers on the outside, a tokenizer's ids inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from multidiff.core.protocols import Condition, Level
from multidiff.nn.lora import LoRA, is_adapter
from multidiff.nn.transformer import KVCache
from multidiff.text.data.vocabulary import END, FIRST, PAD, UNKNOWN

# Logit of a token that is never written: finite, as guidance subtracts logits.
NEVER = -1e9
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of a tokenizer's special tokens.

    Attributes:
        mask: id of the mask.
        pad: id of the padding.
        start: ids before every sequence, such as ``[CLS]``.
        end: id of END, such as ``[SEP]``; None if the network knows none.
        unknown: id of an unknown token; None if every text can be encoded.
    """

    mask: int
    pad: int = 0
    start: tuple[int, ...] = ()
    end: int | None = None
    unknown: int | None = None


class SourceReader(NamedTuple):
    """Source that a denoiser reads: number of distinct tokens, and longest length."""

    size: int
    length: int


class PretrainedDenoiser(nn.Module):
    """Predicts masked tokens by a network that was trained elsewhere on a tokenizer's ids.

    The network reads the special tokens at the start, the source if there is one, and the
    sequence, END included, without gaps between them; padding follows and is not attended to.
    Logits of special tokens, and of rows of the network's table that no token has, are dropped.
    The condition is that of :class:`~multidiff.nn.token_denoiser.TokenDenoiser`.

    Args:
        size: number of tokens of the vocabulary; the mask is one more.
        network: network on ids (:class:`~multidiff.text.masked_lm.networks.TokenNetwork`).
        special: the tokenizer's special tokens.
        sources: number of distinct source tokens: 0 without sources, else ``size``.
        source_length: length of the longest source.
        dtype: type of the network's weights; logits are float32.
        lora: adapters that are trained instead of the network's weights; None to train these.

    Attributes:
        block: number of positions in a block, of a network with blocks; else 0.
        length: length of the longest sequence, of a network with blocks.
        ids: id of each token number.
        written: whether each token may be generated.

    Raises:
        ValueError: if sources are not tokens of the same vocabulary.
    """

    ids: Tensor
    written: Tensor

    def __init__(
        self,
        size: int,
        network: nn.Module,
        special: SpecialTokens,
        sources: int = 0,
        source_length: int = 0,
        dtype: Literal["float32", "bfloat16"] = "float32",
        lora: LoRA | None = None,
    ):
        if sources not in (0, size):
            raise ValueError(f"sources {sources}: a pretrained network reads sources of its own "
                             f"{size} tokens, or none: set 0 or {size}")  # fmt: skip
        super().__init__()
        self.size, self.special = size, special
        self.block: int = getattr(network, "block", 0)
        self.length: int = getattr(network, "length", 0)
        self.network = network
        for one in network.parameters():  # buffers, such as rotary frequencies, stay float32
            one.data = one.data.to(DTYPES[dtype])
        self.lora = lora
        if lora is not None:
            lora.add_to(network, _head_of(network))
        self.source = SourceReader(sources, source_length) if sources else None
        self.register_buffer("ids", torch.zeros(size, dtype=torch.long))
        self.register_buffer("written", torch.ones(size, dtype=torch.bool))

    def own_tensors(self) -> dict[str, Tensor]:
        """Return the tensors that a network without adapters has not."""
        return {name: one for name, one in self.state_dict().items() if is_adapter(name)}

    def forward(
        self, xt: Int[Tensor, "batch length"], level: Level, condition: Condition = None
    ) -> Float[Tensor, "batch length size"]:
        """Return token logits; see :class:`~multidiff.core.discrete.absorbing.MaskProcess`."""
        cond = cast("dict[str, Tensor]", condition or {})
        real = cond.get("real")
        real = torch.ones_like(xt, dtype=torch.bool) if real is None else real
        if self.block:
            x0 = cond.get("x0")
            if x0 is None:
                return self.after(KVCache(), xt, real)
            return self._read(self._blocks.beside(self._table()[x0], self._table()[xt], real))
        packed = self._packed(xt, real, cond.get("source"))
        found = self.network(packed.ids, packed.attended, level)
        rows = torch.arange(len(xt), device=xt.device)[:, None]
        return self._read(found[rows, packed.own])

    def hidden(
        self, xt: Int[Tensor, "batch length"], level: Level, condition: Condition = None
    ) -> Float[Tensor, "batch length width"]:
        """Return the last hidden states of a network of transformers, before its head.

        Raises:
            ValueError: if the network is no such one.
        """
        base: Any = getattr(getattr(self.network, "model", None), "base_model", None)
        if base is None:
            raise ValueError(f"a {type(self.network).__name__} gives no hidden states")
        cond = cast("dict[str, Tensor]", condition or {})
        real = cond.get("real", torch.ones_like(xt, dtype=torch.bool))
        packed = self._packed(xt, real, cond.get("source"))
        states: list[Tensor] = []
        hook = base.register_forward_hook(lambda _, __, out: states.append(out[0]))
        try:
            self.network(packed.ids, packed.attended, level)
        finally:
            hook.remove()
        return states[0].float()[torch.arange(len(xt), device=xt.device)[:, None], packed.own]

    def after(
        self,
        memory: KVCache,
        tokens: Int[Tensor, "batch length"],
        real: Bool[Tensor, "batch length"],
    ) -> Float[Tensor, "batch length size"]:
        """Return the logits of tokens that follow cached ones, for networks with blocks.

        Args:
            memory: KV cache of the tokens before these, whole blocks; these are appended to it.
            tokens: the next tokens.
            real: false at padding.
        """
        return self._read(self._blocks.after(memory, self._table()[tokens], real))

    @property
    def _blocks(self) -> Any:
        return self.network

    def _table(self) -> Int[Tensor, " numbers"]:
        """Return the id of each token number, the mask's last."""
        return torch.cat([self.ids, self.ids.new_tensor([self.special.mask])])

    def _read(self, found: Float[Tensor, "batch length rows"]) -> Tensor:
        """Return the logits of our numbers from those of ids."""
        return found.float().index_select(-1, self.ids).masked_fill(~self.written, NEVER)

    def _packed(self, xt: Tensor, real: Tensor, source: Tensor | None) -> Packed:
        """Lay start, source and sequence side by side, each row without gaps."""
        table = self._table()
        start = self.ids.new_tensor(self.special.start).expand(len(xt), -1)
        source = xt[:, :0] if source is None else source
        # Columns to choose from: start, source, sequence, one of padding.
        pad = torch.full_like(xt[:, :1], self.special.pad)
        columns = torch.cat([start, table[source.clamp(min=0)], table[xt], pad], dim=1)
        there = torch.cat(
            [torch.ones_like(start, dtype=torch.bool), source >= 0, real, pad.bool() & False], dim=1
        )
        before, length = start.shape[1] + (source >= 0).sum(dim=1, keepdim=True), xt.shape[1]
        position = torch.arange(int(before.max()) + length, device=xt.device).expand(len(xt), -1)
        column = torch.where(
            position < before, position, position - before + start.shape[1] + source.shape[1]
        ).clamp(max=columns.shape[1] - 1)
        own = before + torch.arange(length, device=xt.device)
        return Packed(columns.gather(1, column), there.gather(1, column), own)


def _head_of(network: nn.Module) -> nn.Module | None:
    """Return the layer of a network that makes the logits."""
    model: Any = getattr(network, "model", None)
    if model is not None:
        return model.get_output_embeddings()
    output: Any = getattr(network, "output_layer", None)
    return getattr(output, "linear", None)


class Packed(NamedTuple):
    """Sequences as a network reads them.

    Attributes:
        ids: ids of every position.
        attended: false at padding.
        own: positions of the sequence itself.
    """

    ids: Int[Tensor, "batch all"]
    attended: Bool[Tensor, "batch all"]
    own: Int[Tensor, "batch length"]


def token_buffers(
    numbers: dict[int, int], special: SpecialTokens, size: int, never: set[int], ends: bool
) -> dict[str, Any]:
    """Return the buffers ``ids`` and ``written`` of a denoiser.

    Args:
        numbers: id of each token number from 3 up.
        special: the tokenizer's special tokens.
        size: number of tokens.
        never: ids that are never generated.
        ends: whether END is generated rather than known.
    """
    ids = torch.full((size,), special.pad)
    ids[END] = special.pad if special.end is None else special.end
    ids[UNKNOWN] = special.pad if special.unknown is None else special.unknown
    for number, one in numbers.items():
        ids[number] = one
    written = torch.tensor([number >= FIRST and int(ids[number]) not in never
                            for number in range(size)])  # fmt: skip
    written[PAD], written[END] = False, ends
    written[UNKNOWN] = special.unknown is not None
    return {"ids": ids, "written": written}

"""Text encoders, from their configuration or with published weights: CLIP's, SDXL's and SD3's."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from multidiff.image.diffusion.clip_text import CLIPTextTransformer
from multidiff.utils.packages import needs


class TextEncoder(nn.Module):
    """CLIP's text transformer (Radford et al. 2021).

    Args:
        vocabulary: number of tokens.
        width: width of the output.
        feed_forward: inner width.
        layers: number of blocks.
        heads: number of attention heads.
        activation: "quick_gelu" in Stable Diffusion 1, "gelu" in 2.
        length: number of tokens of a caption.
        skip: number of last blocks to skip; the final norm is still applied.
        trained: whether training changes it.
    """

    def __init__(
        self,
        vocabulary: int = 49408,
        width: int = 768,
        feed_forward: int = 3072,
        layers: int = 12,
        heads: int = 12,
        activation: Literal["quick_gelu", "gelu"] = "quick_gelu",
        length: int = 77,
        skip: int = 0,
        trained: bool = False,
    ):
        if activation not in ("quick_gelu", "gelu"):
            raise ValueError(f"activation {activation!r}: must be 'quick_gelu' or 'gelu'")
        if not 0 <= skip < layers:
            raise ValueError(f"skip {skip}: must be 0 to {layers - 1}")
        super().__init__()
        self.transformer = CLIPTextTransformer(
            vocabulary, width, feed_forward, layers, heads, activation, length
        )
        self.width, self.skip, self.trained = width, skip, trained
        self.requires_grad_(trained)

    def forward(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length width"]:
        """Return the hidden state of each token."""
        return self._normed(self._states(tokens)[-(self.skip + 1)])

    def last_states(
        self, tokens: Int[Tensor, "batch length"]
    ) -> tuple[Float[Tensor, "batch length width"], Float[Tensor, "batch length width"]]:
        """Return the hidden states before the last block, without a norm, and those after it."""
        states = self._states(tokens)
        return states[-2], self._normed(states[-1])

    def _states(self, tokens: Tensor) -> list[Tensor]:
        with torch.set_grad_enabled(self.trained and torch.is_grad_enabled()):
            return self.transformer(tokens.to(next(self.parameters()).device))

    def _normed(self, states: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.trained and torch.is_grad_enabled()):
            return self.transformer.final_layer_norm(states)


@torch.no_grad()
def initialise(transformer: Any, model: Any) -> None:
    """Initialise the weights of a transformer on meta at random, as the library's model does."""
    transformer.to_empty(device=torch.get_default_device())
    for module in transformer.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    transformer.apply(model._init_weights)


class SDXLTextEncoder(nn.Module):
    """The two text encoders of Stable Diffusion XL (Podell et al. 2023, section 2.1).

    Tokens are described by the last states but one of both, side by side, and the whole caption by
    the second one's output at its end token, projected.

    Args:
        first: CLIP's text encoder.
        second: OpenCLIP's, which reads the same tokens.
        projection: width of the caption's embedding.
        pad: token that pads captions for the second encoder.
        end: token that ends captions; the last of the vocabulary by default.
    """

    def __init__(
        self,
        first: TextEncoder,
        second: TextEncoder,
        projection: int = 1280,
        pad: int = 0,
        end: int | None = None,
    ):
        super().__init__()
        self.first, self.second, self.pad = first, second, pad
        self.text_projection = nn.Linear(second.width, projection, bias=False)
        self.text_projection.requires_grad_(second.trained)
        vocabulary = second.transformer.embeddings.token_embedding.num_embeddings
        self.end = vocabulary - 1 if end is None else end
        self.width, self.pooled_width = first.width + second.width, projection

    def forward(self, tokens: Int[Tensor, "batch length"]) -> dict[str, Tensor]:
        """Return ``words``, ``(batch, length, width)``, and ``pooled``, ``(batch, pooled_width)``.

        Args:
            tokens: tokens, padded for the first encoder.
        """
        words, _ = self.first.last_states(tokens)
        words_2, last = self.second.last_states(repadded(tokens, self.end, self.pad))
        return {
            "words": torch.cat([words, words_2], dim=2),
            "pooled": self.text_projection(at_end(last, tokens, self.end)),
        }


def repadded(tokens: Int[Tensor, "batch length"], end: int, pad: int) -> Tensor:
    """Return tokens with another padding after the first end token."""
    ends = (tokens == end).int()
    return tokens.masked_fill(ends.cumsum(dim=1) > ends, pad)


def at_end(states: Tensor, tokens: Int[Tensor, "batch length"], end: int) -> Tensor:
    """Return each caption's state at its first end token."""
    places = (tokens == end).int().argmax(dim=1).to(states.device)
    return states[torch.arange(len(states), device=states.device), places]


class T5TextEncoder(nn.Module):
    """T5's encoder (Raffel et al. 2020; version 1.1), by the ``transformers`` library; frozen.

    Args:
        vocabulary: number of tokens.
        width: width of the output.
        feed_forward: inner width.
        layers: number of blocks.
        heads: number of attention heads.
        head_width: number of channels of each.
        activation: kind of the feed-forward networks.
        buckets: number of ranges of relative positions.
        farthest: relative position from which on all are in one range.
        norm_eps: epsilon of the norms.
    """

    def __init__(
        self,
        vocabulary: int = 32128,
        width: int = 4096,
        feed_forward: int = 10240,
        layers: int = 24,
        heads: int = 64,
        head_width: int = 64,
        activation: str = "gated-gelu",
        buckets: int = 32,
        farthest: int = 128,
        norm_eps: float = 1e-6,
    ):
        with needs("transformers", "the text encoder"):
            from transformers import T5Config, T5EncoderModel  # takes seconds to import

        super().__init__()
        config = T5Config(
            vocab_size=vocabulary,
            d_model=width,
            d_ff=feed_forward,
            d_kv=head_width,
            num_layers=layers,
            num_heads=heads,
            feed_forward_proj=activation,
            relative_attention_num_buckets=buckets,
            relative_attention_max_distance=farthest,
            layer_norm_epsilon=norm_eps,
        )
        # On meta, since otherwise the library replaces torch's initialisation functions while it
        # builds, in the whole process; layers built in other threads would be affected.
        with torch.device("meta"):
            model: Any = T5EncoderModel(config)
        self.transformer: Any = model.encoder
        self.width = width
        if not torch.empty(0).is_meta:
            initialise(self.transformer, model)
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length width"]:
        """Return the hidden state of each token; padding is read like any token, as in SD 3."""
        tokens = tokens.to(next(self.parameters()).device)
        return self.transformer(input_ids=tokens).last_hidden_state


class SD3TextEncoder(nn.Module):
    """The text encoders of Stable Diffusion 3; without T5 it reads zeros in its place.

    Esser et al. 2024, section 4 and appendix B.3: the model is trained with each of the three left
    out at random, so that it works without T5, though it writes text in images less well.

    Args:
        first: CLIP's text encoder.
        second: OpenCLIP's, which reads the same tokens.
        width: width of the words, wider than those of both encoders, for T5's.
        projections: widths of the captions' embeddings by both encoders.
        pad: token that pads captions for the second encoder.
        t5_length: number of T5's tokens.
        third: T5's encoder, as wide as the words; None without.

    Raises:
        ValueError: if its width differs.
    """

    def __init__(
        self,
        first: TextEncoder,
        second: TextEncoder,
        width: int = 4096,
        projections: tuple[int, int] = (768, 1280),
        pad: int = 0,
        t5_length: int = 256,
        third: T5TextEncoder | None = None,
    ):
        if third is not None and third.width != width:
            raise ValueError(f"width {width}: T5's is {third.width}; make them alike")
        super().__init__()
        self.first, self.second, self.pad, self.t5_length = first, second, pad, t5_length
        self.third = third
        self.first_projection = nn.Linear(first.width, projections[0], bias=False)
        self.second_projection = nn.Linear(second.width, projections[1], bias=False)
        self.first_projection.requires_grad_(first.trained)
        self.second_projection.requires_grad_(second.trained)
        self.end = second.transformer.embeddings.token_embedding.num_embeddings - 1
        self.width, self.pooled_width = width, sum(projections)

    def forward(self, tokens: Int[Tensor, "batch length"]) -> dict[str, Tensor]:
        """Return ``words``, ``(batch, length + t5_length, width)``, and ``pooled``.

        Args:
            tokens: tokens, padded for the first encoder, and T5's after them if there is one.
        """
        if self.third is not None:
            tokens, others = tokens.split([tokens.shape[1] - self.t5_length, self.t5_length], dim=1)
        words, last = self.first.last_states(tokens)
        words_2, last_2 = self.second.last_states(repadded(tokens, self.end, self.pad))
        both = torch.cat([words, words_2], dim=2)
        both = F.pad(both, (0, self.width - both.shape[2]))
        if self.third is None:
            both = F.pad(both, (0, 0, 0, self.t5_length))
        else:
            both = torch.cat([both, self.third(others)], dim=1)
        pooled = [
            self.first_projection(at_end(last, tokens, self.end)),
            self.second_projection(at_end(last_2, tokens, self.end)),
        ]
        return {"words": both, "pooled": torch.cat(pooled, dim=1)}

"""CLIP text encoder, from its configuration or with its published weights."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from multidiff.utils.packages import needs


class TextEncoder(nn.Module):
    """CLIP's text transformer (Radford et al. 2021), by the ``transformers`` library.

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
        with needs("transformers", "the text encoder"):
            from transformers import CLIPTextConfig, CLIPTextModel  # takes seconds to import

        if not 0 <= skip < layers:
            raise ValueError(f"skip {skip}: must be 0 to {layers - 1}")
        super().__init__()
        config = CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=feed_forward,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            hidden_act=activation,
            max_position_embeddings=length,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
        )
        # On meta, since otherwise the library replaces torch's initialisation functions while it
        # builds, in the whole process; layers built in other threads would be affected.
        with torch.device("meta"):
            model: Any = CLIPTextModel(config)
        # Some versions of the library add a wrapper around the transformer; the names of the
        # weights must not depend on it.
        self.transformer: Any = getattr(model, "text_model", model)
        if not torch.empty(0).is_meta:  # otherwise its values are read from a file
            self._initialise(model)
        self.transformer.embeddings.position_ids = torch.arange(length)[None]
        self.width, self.skip, self.trained = width, skip, trained
        self.requires_grad_(trained)

    @torch.no_grad()
    def _initialise(self, model: Any) -> None:
        """Initialise the weights at random as the library does."""
        self.transformer.to_empty(device=torch.get_default_device())
        for module in self.transformer.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        self.transformer.apply(model._init_weights)

    def forward(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length width"]:
        """Return the hidden state of each token."""
        tokens = tokens.to(next(self.parameters()).device)
        with torch.set_grad_enabled(self.trained and torch.is_grad_enabled()):
            found = self.transformer(input_ids=tokens, output_hidden_states=self.skip > 0)
            if self.skip == 0:
                return found.last_hidden_state
            return self.transformer.final_layer_norm(found.hidden_states[-(self.skip + 1)])

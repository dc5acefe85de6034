"""The text encoder: CLIP's, from its configuration or with its published weights."""

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
        width: of the outcome.
        feed_forward: inner width.
        layers: blocks.
        heads: attention heads.
        activation: "quick_gelu" in Stable Diffusion 1, "gelu" in 2.
        length: tokens of a caption.
        skip: leave out so many of the last blocks; the final norm is applied all the same.
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
            from transformers import CLIPTextConfig, CLIPTextModel  # seconds to import

        if not 0 <= skip < layers:
            raise ValueError(f"skip {skip}: from 0 to {layers - 1}")
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
        # On meta, for else the library exchanges torch's functions of initialisation while it
        # builds, in the whole process; other threads' layers would come out of its own.
        with torch.device("meta"):
            model: Any = CLIPTextModel(config)
        # Some versions of the library wrap the transformer once more; the names of the weights
        # must not depend on it.
        self.transformer: Any = getattr(model, "text_model", model)
        if not torch.empty(0).is_meta:  # else its values are read from a file
            self._initialise(model)
        self.transformer.embeddings.position_ids = torch.arange(length)[None]
        self.width, self.skip, self.trained = width, skip, trained
        self.requires_grad_(trained)

    @torch.no_grad()
    def _initialise(self, model: Any) -> None:
        """Give the weights the random values that the library gives them."""
        self.transformer.to_empty(device=torch.get_default_device())
        for module in self.transformer.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        self.transformer.apply(model._init_weights)

    def forward(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length width"]:
        """What each token has come to mean in its place."""
        tokens = tokens.to(next(self.parameters()).device)
        with torch.set_grad_enabled(self.trained and torch.is_grad_enabled()):
            found = self.transformer(input_ids=tokens, output_hidden_states=self.skip > 0)
            if self.skip == 0:
                return found.last_hidden_state
            return self.transformer.final_layer_norm(found.hidden_states[-(self.skip + 1)])

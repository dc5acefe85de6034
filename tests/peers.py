"""The same networks by diffusers and transformers, with random weights, and ours with theirs.

Small ones for every day and the true shapes of Stable Diffusion 1.5 and 2.1. Random weights
of the usual size give activations that shrink layer by layer; these are made larger, so that
a difference in any layer reaches the output.
"""

from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
import transformers

from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.schedules import BetaSchedule
from multidiff.image.autoencoders.kl import AutoencoderKL
from multidiff.image.diffusion.domains import LatentDomain
from multidiff.image.diffusion.model import ImageDiffusion
from multidiff.image.diffusion.sampling_config import ImageSamplingConfig
from multidiff.image.diffusion.text_encoder import TextEncoder
from multidiff.image.diffusion.unet import UNet

CROSS, PLAIN = "cross", "none"
THEIR_DOWN = {CROSS: "CrossAttnDownBlock2D", PLAIN: "DownBlock2D"}
THEIR_UP = {CROSS: "CrossAttnUpBlock2D", PLAIN: "UpBlock2D"}


@dataclass
class Shape:
    """Of all three networks."""

    channels: tuple = (32, 64, 64)
    attention: tuple = (CROSS, CROSS, PLAIN)
    heads: tuple = (2, 4, 4)
    layers: int = 1
    groups: int = 8
    linear: bool = False
    vae: tuple = (16, 32, 32)
    vae_layers: int = 1
    text: dict[str, Any] = field(
        default_factory=lambda: {
            "vocabulary": 99, "width": 32, "feed_forward": 48, "layers": 3, "heads": 4,
            "activation": "quick_gelu", "length": 12,
        }
    )  # fmt: skip
    prediction: str = "epsilon"


SMALL_1 = Shape()
SMALL_2 = Shape(
    linear=True, heads=(1, 2, 2), layers=2, prediction="v",
    text={**Shape().text, "activation": "gelu"},
)  # fmt: skip
STABLE_1 = Shape(
    (320, 640, 1280, 1280), (CROSS, CROSS, CROSS, PLAIN), (8,) * 4, 2, 32, False,
    (128, 256, 512, 512), 2,
    {"vocabulary": 49408, "width": 768, "feed_forward": 3072, "layers": 12, "heads": 12,
     "activation": "quick_gelu", "length": 77},
)  # fmt: skip
STABLE_2 = Shape(
    (320, 640, 1280, 1280), (CROSS, CROSS, CROSS, PLAIN), (5, 10, 20, 20), 2, 32, True,
    (128, 256, 512, 512), 2,
    {"vocabulary": 49408, "width": 1024, "feed_forward": 4096, "layers": 23, "heads": 16,
     "activation": "gelu", "length": 77},
    "v",
)  # fmt: skip


def randomised(module, seed=0):
    """The module with weights that keep signals going."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if weight.ndim > 1:
                fan_in = weight[0].numel()
                weight.normal_(0, fan_in**-0.5, generator=rng)
            else:
                centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
                weight.normal_(centre, 0.1, generator=rng)
    return module.eval().requires_grad_(False)


def unets(shape):
    """Theirs and ours."""
    theirs = diffusers.UNet2DConditionModel(
        block_out_channels=shape.channels,
        down_block_types=[THEIR_DOWN[kind] for kind in shape.attention],
        up_block_types=[THEIR_UP[kind] for kind in reversed(shape.attention)],
        layers_per_block=shape.layers,
        cross_attention_dim=shape.text["width"],
        attention_head_dim=shape.heads,
        use_linear_projection=shape.linear,
        norm_num_groups=shape.groups,
    )
    ours = UNet(
        4, 4, shape.channels, shape.layers, shape.attention, shape.heads, shape.text["width"],
        linear_projection=shape.linear, groups=shape.groups,
    )  # fmt: skip
    return _paired(theirs, ours)


def autoencoders(shape):
    """Theirs and ours."""
    count = len(shape.vae)
    theirs = diffusers.AutoencoderKL(
        block_out_channels=shape.vae,
        down_block_types=["DownEncoderBlock2D"] * count,
        up_block_types=["UpDecoderBlock2D"] * count,
        layers_per_block=shape.vae_layers,
        norm_num_groups=shape.groups,
    )
    ours = AutoencoderKL(3, shape.vae, shape.vae_layers, groups=shape.groups)
    return _paired(theirs, ours)


def text_encoders(shape):
    """Theirs and ours."""
    text = shape.text
    config = transformers.CLIPTextConfig(
        vocab_size=text["vocabulary"],
        hidden_size=text["width"],
        intermediate_size=text["feed_forward"],
        num_hidden_layers=text["layers"],
        num_attention_heads=text["heads"],
        hidden_act=text["activation"],
        max_position_embeddings=text["length"],
        bos_token_id=text["vocabulary"] - 2,
        eos_token_id=text["vocabulary"] - 1,
    )
    theirs = randomised(transformers.CLIPTextModel(config))
    ours = TextEncoder(**text)
    state = {k.removeprefix("text_model."): v for k, v in theirs.state_dict().items()}
    ours.transformer.load_state_dict(state)
    return theirs, ours.eval()


def _paired(theirs, ours):
    randomised(theirs)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours.eval().requires_grad_(False)


class FixedTokenizer:
    """Token numbers from a hash of the letters: a tokenizer for encoders of random weights."""

    def __init__(self, vocabulary, length):
        self.vocabulary, self.length = vocabulary, length

    def __call__(self, captions):
        rows = [
            [(7 * ord(c) + i) % self.vocabulary for i, c in enumerate(text)] for text in captions
        ]
        return torch.tensor([(row + [0] * self.length)[: self.length] for row in rows])

    def complaint(self, caption):
        return None

    def assets(self):
        return {}

    def load_assets(self, folder):
        pass


def model_of(shape, unet, autoencoder, text_encoder):
    """Our whole model of these parts."""
    tokenizer = FixedTokenizer(shape.text["vocabulary"], shape.text["length"])
    schedule = BetaSchedule.scaled_linear(1000, 0.00085, 0.012)
    return ImageDiffusion(
        LatentDomain(autoencoder, text_encoder, tokenizer),
        GaussianProcess(schedule, shape.prediction),
        unet,
        ImageSamplingConfig(20, "ddim", 7.5, "leading"),
    ).eval()


def relative(ours, theirs):
    """The largest difference in units of the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())

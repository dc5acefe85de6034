"""Stable Diffusion at a toy's size: built by diffusers, written as its folder or single file."""

import json

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from multidiff.image.stable_diffusion import naming
from multidiff.image.stable_diffusion.single_file import map_to_theirs
from multidiff.image.stable_diffusion.tensors import as_convolutions, packed, without_clip_prefix

LETTERS = [chr(code) for code in range(33, 127)]
MERGES = ["a b", "c a", "ca t</w>"]
ENDS = ["<|startoftext|>", "<|endoftext|>"]
# What tells the first version's networks from the second's; widths that head sizes divide.
UNETS = {
    1: {"attention_head_dim": 8},
    2: {"attention_head_dim": [1, 2], "use_linear_projection": True, "upcast_attention": True},
}
WIDTH = {1: 64, 2: 128}


def write_tokenizer(folder):
    """A byte-pair code of printable letters and three merges, by CLIP's rules."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = LETTERS + [f"{one}</w>" for one in LETTERS]
    tokens += [merge.replace(" ", "") for merge in MERGES] + ENDS
    vocabulary = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]))
    return vocabulary


def pipeline(folder, version=1, prediction="epsilon", in_channels=4, **scheduling):
    """A pipeline with random weights, and with a tokenizer whose files are put in a folder."""
    torch.manual_seed(version)
    vocabulary = write_tokenizer(folder)
    width = WIDTH[version]
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=in_channels,
        block_out_channels=(64, 128),
        layers_per_block=1,
        cross_attention_dim=width,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        **UNETS[version],
    )
    return StableDiffusionPipeline(
        vae=small_vae(),
        unet=unet,
        text_encoder=CLIPTextModel(small_text(vocabulary, version)),
        tokenizer=small_tokenizer(folder, version),
        scheduler=small_scheduler(prediction, **scheduling),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def small_vae(**options):
    return AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        sample_size=16,
        **options,
    )


def small_text(vocabulary, version, **options):
    return CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=WIDTH[version],
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=WIDTH[version] // 64,
        max_position_embeddings=12,
        hidden_act="quick_gelu" if version == 1 else "gelu",
        bos_token_id=len(vocabulary) - 2,
        eos_token_id=len(vocabulary) - 1,
        **options,
    )


def small_tokenizer(folder, version):
    pad = ENDS[1] if version == 1 else "!"
    return CLIPTokenizer.from_pretrained(folder, pad_token=pad, model_max_length=12)


def small_scheduler(prediction="epsilon", **scheduling):
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
        prediction_type=prediction,
        **scheduling,
    )


def xl_pipeline(folder, prediction="epsilon", in_channels=4, **scheduling):
    """Stable Diffusion XL with random weights: two text encoders, two blocks at the last level."""
    torch.manual_seed(3)
    vocabulary = write_tokenizer(folder)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=in_channels,
        block_out_channels=(64, 128),
        layers_per_block=1,
        cross_attention_dim=WIDTH[1] + WIDTH[2],
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 2],
        attention_head_dim=[1, 2],
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=48 + 6 * 256,
    )
    return StableDiffusionXLPipeline(
        vae=small_vae(scaling_factor=0.13025),
        unet=unet,
        text_encoder=CLIPTextModel(small_text(vocabulary, 1)),
        text_encoder_2=CLIPTextModelWithProjection(small_text(vocabulary, 2, projection_dim=48)),
        tokenizer=small_tokenizer(folder, 1),
        tokenizer_2=small_tokenizer(folder, 2),
        scheduler=small_scheduler(prediction, **scheduling),
        add_watermarker=False,
    )


def compvis(pipe):
    """A pipeline's tensors by the names of a single file."""
    is_xl = hasattr(pipe, "text_encoder_2")
    version = 1 if pipe.text_encoder.config.hidden_act == "quick_gelu" else 2
    text = without_clip_prefix(pipe.text_encoder.state_dict())
    ours = {
        **{naming.OUR_UNET + name: t for name, t in pipe.unet.state_dict().items()},
        **{naming.OUR_AUTOENCODER + name: t for name, t in pipe.vae.state_dict().items()},
        **{(naming.OUR_FIRST if is_xl else naming.OUR_TEXT_ENCODER) + name: t
           for name, t in text.items()},
    }  # fmt: skip
    if is_xl:
        second = without_clip_prefix(pipe.text_encoder_2.state_dict())
        ours[naming.OUR_PROJECTION + ".weight"] = second.pop("text_projection.weight").T
        ours |= {naming.OUR_SECOND + name: t for name, t in second.items()}
    found, unknown = naming.sorted_out(
        as_convolutions(ours), map_to_theirs(ours, is_open_clip=version == 2)
    )
    assert not unknown
    return {name: t.contiguous() for name, t in packed(found).items()}


# ------------------------------------------------------------ the published sizes, without memory

VERSIONS = {
    1: {"cross_attention_dim": 768, "attention_head_dim": 8},
    2: {
        "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20],
        "use_linear_projection": True,
    },
}


def on_meta(kind, *options, **named):
    with torch.device("meta"):
        return kind(*options, **named)


def unet(version=1, **options):
    return on_meta(UNet2DConditionModel, **VERSIONS[version], **options)


def autoencoder(channels=(128, 256, 512, 512), layers=2):
    levels = len(channels)
    return on_meta(
        AutoencoderKL,
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=layers,
    )


def text_encoder(width=1024, layers=23, heads=16):
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
    )
    names = on_meta(CLIPTextModel, config).state_dict()
    return without_clip_prefix(names)

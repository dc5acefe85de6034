"""Files of improved-diffusion and guided-diffusion: equal to the same weights in diffusers."""

import pytest
import torch
from commands import complains, does
from diffusers import UNet2DModel

import multidiff as md
from multidiff.image.stable_diffusion.conversion import convert
from multidiff.utils.errors import InputError

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
          "norm2": "out_layers.0", "conv2": "out_layers.3",
          "conv_shortcut": "skip_connection"}  # fmt: skip
# Ours and theirs of two levels with two layers each and attention at the second.
BLOCKS = {
    "down_blocks.0.resnets.0": "input_blocks.1.0", "down_blocks.0.resnets.1": "input_blocks.2.0",
    "down_blocks.0.downsamplers.0": "input_blocks.3.0",
    "down_blocks.1.resnets.0": "input_blocks.4.0", "down_blocks.1.attentions.0": "input_blocks.4.1",
    "down_blocks.1.resnets.1": "input_blocks.5.0", "down_blocks.1.attentions.1": "input_blocks.5.1",
    "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "up_blocks.0.resnets.0": "output_blocks.0.0", "up_blocks.0.attentions.0": "output_blocks.0.1",
    "up_blocks.0.resnets.1": "output_blocks.1.0", "up_blocks.0.attentions.1": "output_blocks.1.1",
    "up_blocks.0.resnets.2": "output_blocks.2.0", "up_blocks.0.attentions.2": "output_blocks.2.1",
    "up_blocks.0.upsamplers.0": "output_blocks.2.2",
    "up_blocks.1.resnets.0": "output_blocks.3.0", "up_blocks.1.resnets.1": "output_blocks.4.0",
    "up_blocks.1.resnets.2": "output_blocks.5.0",
}  # fmt: skip
REST = {"conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2", "class_embedding": "label_emb",
        "conv_norm_out": "out.0", "conv_out": "out.2"}  # fmt: skip


def network(scale_shift=True, resnets=True, **options):
    torch.manual_seed(0)
    kind = "resnet" if resnets else "conv"
    first = "ResnetDownsampleBlock2D" if resnets else "DownBlock2D"
    return UNet2DModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=2,
        down_block_types=(first, "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=32,
        attn_norm_num_groups=32,
        resnet_time_scale_shift="scale_shift" if scale_shift else "default",
        downsample_type=kind,
        upsample_type=kind,
        **options,
    ).eval()


def published(unet, order):
    """Its tensors under the names and in the shapes of guided-diffusion."""
    state, found = unet.state_dict(), {}
    for name, tensor in state.items():
        block = next((one for one in (*BLOCKS, *REST) if name.startswith(one + ".")), None)
        inner = name.removeprefix(f"{block}.")
        leaf, _, kind = inner.rpartition(".")
        theirs = {**BLOCKS, **REST}[block]
        if leaf in RESNET:
            found[f"{theirs}.{RESNET[leaf]}.{kind}"] = tensor
        elif leaf == "conv":
            found[f"{theirs}.{'op' if 'down' in block else 'conv'}.{kind}"] = tensor
        elif leaf == "group_norm":
            found[f"{theirs}.norm.{kind}"] = tensor
        elif leaf == "to_out.0":
            found[f"{theirs}.proj_out.{kind}"] = tensor[..., None] if tensor.ndim == 2 else tensor
        elif leaf == "to_q":
            parts = [state[f"{block}.to_{one}.{kind}"].flatten(1) if tensor.ndim == 2 else
                     state[f"{block}.to_{one}.{kind}"][:, None] for one in "qkv"]  # fmt: skip
            heads = [part.chunk(2) for part in parts]
            by_heads = [heads[part][head] for head in range(2) for part in range(3)]
            packed = torch.cat(by_heads if order == "legacy" else parts)
            packed = packed[..., None] if tensor.ndim == 2 else packed[:, 0]
            found[f"{theirs}.qkv.{kind}"] = packed
        elif leaf not in ("to_k", "to_v"):
            found[f"{theirs}.{inner}"] = tensor
    return found


@pytest.mark.parametrize(
    ("scale_shift", "resnets", "order", "options"),
    [
        (True, True, "legacy", {"out_channels": 6, "num_class_embeds": 5}),
        (True, False, "new", {}),
        (False, True, "new", {"num_class_embeds": 2}),
        (False, False, "legacy", {"out_channels": 6}),
    ],
)
def test_outputs_are_equal(tmp_path, capsys, scale_shift, resnets, order, options):
    unet = network(scale_shift, resnets, **options)
    torch.save(published(unet, order), tmp_path / "a.pt")
    words = ("--image-size", 8, "--heads", 2, "--qkv-order", order, "--schedule", "cosine")
    does(capsys, "convert", tmp_path / "a.pt", tmp_path / "ours", *words)
    model = md.load(tmp_path / "ours")
    xt, time = torch.randn(2, 3, 8, 8, generator=torch.Generator()), torch.tensor([3, 980])
    level = model.process.schedule.at((time + 1) / 1000)
    classes = torch.tensor([1, 0]) if "num_class_embeds" in options else None
    with torch.no_grad():
        wanted = unet(xt, time, class_labels=classes).sample
        found = model.denoiser(xt, level, classes)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert model.process.learns_variance == ("out_channels" in options)
    prompt = ["--prompt", "1"] if classes is not None else []
    does(capsys, "sample", tmp_path / "ours", *prompt, "--steps", 2, "-o", tmp_path / "out")


def test_what_a_file_does_not_tell_is_asked_for(tmp_path, capsys):
    state = published(network(), "legacy")
    torch.save(state, tmp_path / "a.pt")
    reported = complains(capsys, "convert", tmp_path / "a.pt", tmp_path / "b")
    assert "channels [32, 64], which no published model has" in reported and "--heads" in reported
    torch.save(state | {"other.weight": torch.zeros(1)}, tmp_path / "b.pt")
    words = {"image_size": 8, "heads": 2}
    said = ["convert", tmp_path / "b.pt", tmp_path / "b", "--image-size", 8, "--heads", 2]
    reported = complains(capsys, *said)
    assert "tensors that its model does not: other.weight; to leave them out" in reported
    does(capsys, *said, "--allow-unexpected")
    del state["out.2.weight"]
    torch.save(state, tmp_path / "c.pt")
    with pytest.raises(InputError, match=r"lacks out\.2\.weight"):
        convert(tmp_path / "c.pt", **words)

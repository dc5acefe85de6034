"""Names of Stable Diffusion's tensors: bijections over every key, and another library's map."""

import pytest
import torch
from diffusers.loaders import single_file_utils as theirs
from pipelines import VERSIONS, autoencoder, text_encoder, unet
from transformers import CLIPTextConfig, CLIPTextModel

from multidiff.image.stable_diffusion import naming
from multidiff.image.stable_diffusion.tensors import (
    as_convolutions,
    as_matrices,
    modern_attention,
    packed,
    unpacked,
    without_clip_prefix,
)
from multidiff.utils.errors import InputError


def there_and_back(names, pairs):
    """The names on the other side, each different, which lead back to these."""
    other = [naming.renamed(name, pairs) for name in names]
    assert None not in other and len(set(other)) == len(other)
    assert [naming.renamed(name, naming.inverted(pairs)) for name in other] == list(names)
    return other


@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_of_the_unet(version):
    model = unet(version)
    ours = model.state_dict()
    levels = naming.levels_of_ours(ours)
    compvis = there_and_back(ours, naming.unet_map(levels))
    assert len(ours) == 686
    assert levels == naming.levels_of_theirs(compvis)
    assert levels == naming.Levels(2, (True, True, True, False))

    state = {naming.UNET + new: ours[old] for new, old in zip(compvis, ours, strict=True)}
    wanted = theirs.convert_ldm_unet_checkpoint(dict(state), model.config)
    assert wanted.keys() == ours.keys()
    assert all(wanted[name] is ours[name] for name in ours)


@pytest.mark.parametrize(
    ("position", "name"),
    [
        ("input_blocks.1.0.in_layers.2.weight", "down_blocks.0.resnets.0.conv1.weight"),
        ("input_blocks.3.0.op.bias", "down_blocks.0.downsamplers.0.conv.bias"),
        ("input_blocks.11.0.out_layers.3.bias", "down_blocks.3.resnets.1.conv2.bias"),
        ("middle_block.1.proj_in.weight", "mid_block.attentions.0.proj_in.weight"),
        ("output_blocks.2.1.conv.weight", "up_blocks.0.upsamplers.0.conv.weight"),
        ("output_blocks.5.2.conv.weight", "up_blocks.1.upsamplers.0.conv.weight"),
        ("output_blocks.11.0.skip_connection.bias", "up_blocks.3.resnets.2.conv_shortcut.bias"),
    ],
)
def test_names_as_the_papers_code_has_them(position, name):
    pairs = naming.unet_map(naming.Levels(2, (True, True, True, False)))
    assert naming.renamed(name, pairs) == position


@pytest.mark.parametrize("attended", [(True,), (False, True), (True, True, True)])
@pytest.mark.parametrize("layers", [1, 3])
def test_other_numbers_of_levels_and_layers(attended, layers):
    channels = tuple(32 * (i + 1) for i in range(len(attended)))
    down = ["CrossAttnDownBlock2D" if one else "DownBlock2D" for one in attended]
    up = ["CrossAttnUpBlock2D" if one else "UpBlock2D" for one in reversed(attended)]
    model = unet(
        block_out_channels=channels,
        down_block_types=down,
        up_block_types=up,
        layers_per_block=layers,
    )
    levels = naming.levels_of_ours(model.state_dict())
    compvis = there_and_back(model.state_dict(), naming.unet_map(levels))
    assert levels == naming.Levels(layers, attended) == naming.levels_of_theirs(compvis)

    names = autoencoder(channels, layers).state_dict()
    pairs = naming.autoencoder_map_of(names)
    assert pairs == naming.autoencoder_map_of(there_and_back(names, pairs))


def test_blocks_that_make_no_unet():
    with pytest.raises(InputError, match="3 input blocks, 2 downsampling"):
        naming.levels_of_theirs([f"input_blocks.{i}.0.op.weight" for i in (0, 2)])


def test_every_name_of_the_autoencoder():
    model = autoencoder()
    ours = model.state_dict()
    pairs = naming.autoencoder_map_of(ours)
    compvis = there_and_back(ours, pairs)
    assert len(ours) == 248 and pairs == naming.autoencoder_map_of(compvis)
    at = dict(zip(compvis, ours, strict=True))
    assert at["decoder.up.3.block.0.norm1.weight"] == "decoder.up_blocks.0.resnets.0.norm1.weight"
    assert at["decoder.up.1.upsample.conv.bias"] == "decoder.up_blocks.2.upsamplers.0.conv.bias"

    written = as_convolutions(ours)
    assert written["encoder.mid_block.attentions.0.to_q.weight"].shape == (512, 512, 1, 1)
    assert written["encoder.mid_block.attentions.0.group_norm.weight"].shape == (512,)
    state = {naming.AUTOENCODER + naming.renamed(name, pairs): written[name] for name in ours}
    wanted = theirs.convert_ldm_vae_checkpoint(state, model.config)
    assert {name: t.shape for name, t in wanted.items()} == {n: t.shape for n, t in ours.items()}
    back = as_matrices(written)
    assert {name: t.shape for name, t in back.items()} == {n: t.shape for n, t in ours.items()}


def test_older_names_of_the_autoencoders_attention():
    new = autoencoder().state_dict()
    old = {
        name.replace("to_out.0", "proj_attn")
        .replace("to_q", "query")
        .replace("to_k", "key")
        .replace("to_v", "value"): name
        for name in new
    }
    assert old.keys() != new.keys()
    assert all(name == was for name, was in modern_attention(old).items())


def test_every_name_of_the_text_encoders():
    assert len(text_encoder(768, 12, 12)) == 196
    ours = text_encoder()
    assert len(ours) == 372
    pairs = naming.open_clip_map(naming.text_layers(ours))
    compvis = there_and_back(ours, pairs)
    assert naming.text_layers(compvis) == 23


def test_packed_queries_keys_and_values():
    """Against the other library's own reading of the packed matrices."""
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=20,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    model = CLIPTextModel(config)
    ours = without_clip_prefix(model.state_dict())
    apart, unknown = naming.sorted_out(ours, naming.open_clip_map(2))
    file = packed(apart)
    assert not unknown and len(file) == 4 + 2 * 12
    assert file["transformer.resblocks.1.attn.in_proj_weight"].shape == (24, 8)
    back, unknown = naming.sorted_out(unpacked(file), naming.inverted(naming.open_clip_map(2)))
    assert not unknown and back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)

    state = {naming.OPEN_CLIP + name: tensor for name, tensor in file.items()}
    wanted = without_clip_prefix(theirs.convert_open_clip_checkpoint(model, state))
    assert wanted.keys() == ours.keys()
    assert all(torch.equal(wanted[name], ours[name]) for name in ours)


def test_names_of_the_moving_average():
    assert naming.averaged_name("input_blocks.0.0.weight") == (
        "model_ema.diffusion_modelinput_blocks00weight"
    )

"""LoRA files: every way of naming, the exact sum, and what does not fit."""

import json
import logging

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn

from multidiff.image.stable_diffusion import naming
from multidiff.image.stable_diffusion.lora import merge_lora
from multidiff.utils.errors import InputError

RANK, ALPHA = 3, 6.0
QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
OUTCOME = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0"
ENTRY = "down_blocks.0.attentions.0.proj_in"  # a 1x1 convolution
KERNEL = "mid_block.resnets.1.conv2"
LAYERS = (QUERY, OUTCOME, ENTRY, KERNEL)
TEXT = "encoder.layers.1.self_attn.out_proj"
FIRST = "encoder.layers.0.mlp.fc1"


class Text(nn.Module):
    """CLIP's names at a toy's size."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList()
        for _ in range(2):
            layer = nn.Module()
            layer.self_attn, layer.mlp = nn.Module(), nn.Module()
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                setattr(layer.self_attn, name, nn.Linear(8, 8))
            layer.mlp.fc1 = nn.Linear(8, 16)
            self.encoder.layers.append(layer)


@pytest.fixture
def model():
    torch.manual_seed(0)
    whole = nn.Module()
    whole.denoiser = UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        cross_attention_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    whole.domain = nn.Module()
    whole.domain.text_encoder = nn.Module()
    whole.domain.text_encoder.transformer = Text()
    return whole


def pairs(model, as_kernels=False):
    """Random A and B for some layers: by path in the UNet and in the text encoder."""
    rng = torch.Generator().manual_seed(1)
    found = {}
    for path in (*LAYERS, TEXT, FIRST):
        weight = layer(model, path).weight
        down = torch.randn(RANK, *weight.shape[1:], generator=rng)
        up = torch.randn(weight.shape[0], RANK, *[1] * (weight.ndim - 2), generator=rng)
        found[path] = (down, up)
    return found


def layer(model, path):
    is_text = path.startswith("encoder.")
    owner = model.domain.text_encoder.transformer if is_text else model.denoiser
    return owner.get_submodule(path)


def peft(found, model):
    part = {True: "text_encoder.text_model.", False: "unet."}
    state = {}
    for path, (down, up) in found.items():
        name = part[path.startswith("encoder.")] + path
        state |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    reported = {"unet.lora_alpha": ALPHA, "text_encoder.lora_alpha": ALPHA, "unet.r": RANK}
    return state, {"lora_adapter_metadata": json.dumps(reported)}


def kohya(found, model, rename=lambda path: path):
    part = {True: "lora_te_text_model_", False: "lora_unet_"}
    state = {}
    for path, (down, up) in found.items():
        is_text = path.startswith("encoder.")
        name = part[is_text] + (path if is_text else rename(path)).replace(".", "_")
        state |= {
            f"{name}.lora_down.weight": down,
            f"{name}.lora_up.weight": up,
            f"{name}.alpha": torch.tensor(ALPHA),
        }
    return state, None


def compvis_kohya(found, model):
    whole = naming.unet_map(naming.levels_of_ours(model.denoiser.state_dict()))
    return kohya(found, model, lambda path: naming.renamed(path, whole))


def older(found, model):
    """Both of diffusers' earlier ways; they have no alpha, so it is in the matrix."""
    state = {}
    for path, (down, up) in found.items():
        is_text = path.startswith("encoder.")
        if path in (QUERY, OUTCOME):
            owner, _, last = path.replace("to_out.0", "to_out").rpartition(".")
            name = f"unet.{owner}.processor.{last}_lora"
        elif path == TEXT:
            name = "text_encoder.text_model.encoder.layers.1.self_attn.to_out_lora"
        else:
            name = f"text_encoder.{path}.lora_linear_layer" if is_text else f"unet.{path}.lora"
        state |= {f"{name}.down.weight": down, f"{name}.up.weight": up * ALPHA / RANK}
    return state, None


def write(content, path):
    state, metadata = content
    save_file({name: t.contiguous() for name, t in state.items()}, path, metadata)
    return path


def weights(model):
    return {name: t.clone() for name, t in model.state_dict().items()}


@pytest.mark.parametrize("form", [peft, kohya, compvis_kohya, older])
def test_every_form_gives_the_sum(model, tmp_path, form):
    found, before = pairs(model), weights(model)
    report = merge_lora(model, write(form(found, model), tmp_path / "a.safetensors"), 0.5)
    wanted = dict(before)
    for path, (down, up) in found.items():
        prefix = naming.OUR_TEXT_ENCODER if path.startswith("encoder.") else naming.OUR_UNET
        name = f"{prefix}{path}.weight"
        product = torch.einsum("or...,ri...->oi...", up.double(), down.double())
        wanted[name] = (before[name] + 0.5 * ALPHA / RANK * product).float()
    after = model.state_dict()
    for name in wanted:
        torch.testing.assert_close(after[name], wanted[name], rtol=1e-5, atol=1e-5)
    assert len(report.matched) == len(found) and report.unmatched == []
    merge_lora(model, tmp_path / "a.safetensors", -0.5)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("path", LAYERS)
def test_the_merged_layer_is_the_layer_and_a_narrow_path(model, tmp_path, path):
    """What a layer makes afterwards: its own outcome and ``scale * B(A(x))`` beside it."""
    found = {path: pairs(model)[path]}
    down, up = found[path]
    merged = layer(model, path)
    shape = (2, merged.weight.shape[1], 5, 5) if down.ndim == 4 else (2, merged.weight.shape[1])
    x = torch.randn(shape)
    with torch.no_grad():
        own = merged(x)
        narrow = (
            nn.functional.conv2d(nn.functional.conv2d(x, down, padding=merged.padding), up)
            if down.ndim == 4
            else x @ down.T @ up.T
        )
        merge_lora(model, write(kohya(found, model), tmp_path / "a.safetensors"))
        torch.testing.assert_close(
            merged(x), own + ALPHA / RANK * narrow, rtol=1e-4, atol=1e-4 * float(narrow.abs().max())
        )


def test_a_linear_lora_of_a_1x1_convolution_and_the_other_way_round(model, tmp_path):
    found = pairs(model)
    flat = {ENTRY: tuple(t.flatten(1) for t in found[ENTRY])}
    square = {QUERY: tuple(t[:, :, None, None] for t in found[QUERY])}
    before = weights(model)
    merge_lora(model, write(kohya(flat | square, model), tmp_path / "a.safetensors"))
    for path in (ENTRY, QUERY):
        down, up = (t.flatten(1) for t in found[path])
        change = (layer(model, path).weight - before[f"{naming.OUR_UNET}{path}.weight"]).flatten(1)
        torch.testing.assert_close(change, ALPHA / RANK * up @ down, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("reported", "scale"),
    [
        ({}, 1.0),
        ({"unet.lora_alpha": 6}, 2.0),
        ({"unet.lora_alpha": 6, "unet.use_rslora": True}, 6 / 3**0.5),
        ({"unet.lora_alpha": 6, "unet.alpha_pattern": {QUERY: 12}}, 4.0),
        ({"text_encoder.lora_alpha": 6}, 1.0),
    ],
)
def test_alpha_in_the_metadata(model, tmp_path, reported, scale):
    found = {QUERY: pairs(model)[QUERY]}
    state, _ = peft(found, model)
    before = layer(model, QUERY).weight.detach().clone()
    metadata = {"lora_adapter_metadata": json.dumps(reported)}
    merge_lora(model, write((state, metadata), tmp_path / "a.safetensors"))
    down, up = found[QUERY]
    change = layer(model, QUERY).weight - before
    torch.testing.assert_close(change, scale * up @ down, rtol=1e-4, atol=1e-4)


def test_what_is_not_used_is_told(model, tmp_path, caplog):
    """Another model's layers, half a pair, and a third matrix between the two."""
    state, _ = kohya(pairs(model), model)
    extra = {
        "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.zeros(1),
        "lora_unet_mid_block_resnets_1_conv2.lora_mid.weight": torch.zeros(1),
        "lora_unet_conv_in.lora_up.weight": torch.zeros(1),
    }
    with caplog.at_level(logging.WARNING):
        path = write((state | extra, None), tmp_path / "a.safetensors")
        report = merge_lora(model, path)
    assert set(extra) < set(report.unmatched) and len(report.unmatched) == 6
    assert len(report.matched) == 5 and f"{naming.OUR_UNET}{KERNEL}" not in report.matched
    assert f"{path}: 6 tensors are not used: lora_" in caplog.text
    assert caplog.text.count("\n") == 1


def test_files_that_change_nothing(model, tmp_path):
    before = weights(model)
    with pytest.raises(
        InputError, match=r"changes no layer of this model; its tensors are unet\.x\.lora"
    ):
        merge_lora(model, write(({"unet.x.lora_A.weight": torch.ones(1)}, None), tmp_path / "a"))
    with pytest.raises(InputError, match="its tensors are nothing"):
        merge_lora(model, write(({}, None), tmp_path / "a"))
    state, _ = kohya(pairs(model), model)
    name = "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight"
    state[name] = torch.zeros(9, RANK)
    with pytest.raises(InputError, match=r"fc1: \(9, 3\) times \(3, 8\) does not fit the weight"):
        merge_lora(model, write((state, None), tmp_path / "a"))
    state[name] = torch.tensor(1.0)
    with pytest.raises(InputError, match=r"\(\) times \(3, 8\) does not fit the weight"):
        merge_lora(model, write((state, None), tmp_path / "a"))
    odd = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": "6"})}
    with pytest.raises(InputError, match="gives alpha '6', which is not a number"):
        merge_lora(model, write((peft(pairs(model), model)[0], odd), tmp_path / "a"))
    broken = {"lora_adapter_metadata": "{"}
    with pytest.raises(InputError, match="is not JSON"):
        merge_lora(model, write((peft(pairs(model), model)[0], broken), tmp_path / "a"))
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())

"""DiT: equal to diffusers with the same weights, and its own conditions and positions."""

import json

import pytest
import torch
from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel
from pipelines import small_vae

from multidiff import load
from multidiff.core.gaussian.schedules import BetaSchedule
from multidiff.core.random import generators
from multidiff.image.diffusion.dit import DiT
from multidiff.image.stable_diffusion.dit_folder import own_names
from multidiff.models.convert import convert_checkpoint

STEPS = 1000


def peer(**options):
    """A random network of diffusers; its blocks share their embeddings, as published ones do."""
    torch.manual_seed(0)
    options = {"num_embeds_ada_norm": 5, "num_layers": 2, **options}
    network = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=16, sample_size=8, out_channels=8, **options
    ).eval()
    for parameter in network.parameters():  # also of what begins at zero
        torch.nn.init.normal_(parameter, std=0.2)
    first = network.transformer_blocks[0].norm1.emb
    for block in network.transformer_blocks[1:]:
        block.norm1.emb.load_state_dict(first.state_dict())
    return network


@pytest.mark.parametrize("side", [8, 12])
def test_it_computes_the_same(side):
    theirs = peer()
    ours = DiT(4, 8, (8, 8), 2, 32, 2, 2, classes=5, mlp_norm_eps=1e-5, freq_shift=1)
    ours.load_state_dict(own_names(theirs.state_dict(), "here"))
    xt, time = torch.randn(3, 4, side, side), torch.tensor([3, 500, 999])
    level = BetaSchedule.linear(STEPS, 1e-4, 0.02).at((time + 1) / STEPS)
    with torch.no_grad():
        found = ours(xt, level, torch.tensor([4, -1, 0]))
        wanted = theirs(xt, timestep=time, class_labels=torch.tensor([4, 5, 0])).sample
    assert found.shape == (3, 8, side, side) and wanted.std() > 0.1
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def level_of(count):
    return BetaSchedule.linear(STEPS, 1e-4, 0.02).at(torch.full((count,), 0.5))


def test_a_new_network_returns_zeros_and_its_gates_are_closed():
    torch.manual_seed(0)
    network = DiT(3, 3, (8, 8), 2, 32, 2, 2, positions="rope")
    assert not network(torch.randn(2, 3, 8, 8), level_of(2)).any()


@pytest.mark.parametrize("positions", ["sincos", "rope"])
def test_captions_reach_the_patches_and_order_matters(positions):
    torch.manual_seed(0)
    network = DiT(3, 3, (8, 8), 2, 32, 2, 2, condition_width=6, positions=positions).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    xt, words = torch.randn(1, 3, 8, 12), torch.randn(1, 4, 6)
    with torch.no_grad():
        first = network(xt, level_of(1), words)
        assert first.shape == xt.shape
        assert (network(xt, level_of(1), words.flip(2)) - first).abs().max() > 1e-3
        mirrored = network(xt.flip(3), level_of(1), words).flip(3)
        assert (mirrored - first).abs().max() > 1e-3  # positions are seen
        half = network.to(torch.bfloat16)(xt, level_of(1), words)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, first, rtol=0.1, atol=0.3)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_the_folder_of_a_pipeline(tmp_path, guidance_scale):
    labels = {str(number): f"kind {number}, or so" for number in range(1000)}
    scheduler = DDIMScheduler(
        clip_sample=False, set_alpha_to_one=False, steps_offset=1, timestep_spacing="leading"
    )
    pipe = DiTPipeline(peer(num_embeds_ada_norm=1000), small_vae(), scheduler)
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(tmp_path / "folder")
    index = tmp_path / "folder" / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"id2label": labels}))
    model = load(tmp_path / "folder")
    assert model.domain.classes[3] == "kind 3, or so" and model.domain.size == (16, 16)
    noise = model.process.prior((1, 4, 8, 8), generators([3]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusers.pipelines.dit.pipeline_dit.randn_tensor", lambda **_: noise)
        wanted = pipe([3], guidance_scale, num_inference_steps=4, output_type="pt").images
    seen, decode = [], model.domain.to_image
    model.domain.to_image = lambda *given: seen.append(decode(*given)) or seen[-1]
    model.generate("kind 3, or so", seed=3, steps=4, guidance_scale=guidance_scale)
    torch.testing.assert_close(seen[0].clamp(-1, 1), 2 * wanted - 1, rtol=0, atol=1e-4)
    convert_checkpoint(tmp_path / "folder", tmp_path / "ours")
    convert_checkpoint(tmp_path / "ours", tmp_path / "theirs", False, ["--to", "diffusers"])
    again = DiTPipeline.from_pretrained(tmp_path / "theirs")
    assert json.loads((tmp_path / "theirs" / "model_index.json").read_text())["id2label"] == labels
    for name, tensor in pipe.transformer.state_dict().items():
        assert torch.equal(again.transformer.state_dict()[name], tensor)
    written, given = (
        {key: value for key, value in one.transformer.config.items() if not key.startswith("_")}
        for one in (again, pipe)
    )
    assert written == given

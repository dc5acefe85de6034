"""Published diffusion language models, read without their code: MDLM, SEDD, LLaDA, Dream."""

import json

import pytest
import torch
import transformers
from commands import complains, does, facts
from published import mdlm, prompted
from safetensors.torch import save_file

import multidiff as md
from multidiff.core.discrete.schedules import LogLinearMasks
from multidiff.models.weights import read_tensors
from multidiff.nn.token_denoiser import BlockReader
from multidiff.text.data.vocabulary import END
from multidiff.text.request import TextRequest
from multidiff.utils.errors import InputError

LEVEL = LogLinearMasks().at(torch.full((1,), 0.7))


def independent(tensors, ids, sigma, positions=None, sees=None, heads=4):
    """MDLM's network from its formulas alone, on one sequence."""
    positions = torch.arange(len(ids)) if positions is None else positions
    sees = torch.ones(len(ids), len(ids), dtype=torch.bool) if sees is None else sees

    def linear(x, name):
        bias = tensors.get(f"{name}.bias")
        return x @ tensors[f"{name}.weight"].T + (0 if bias is None else bias)

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * tensors[name]

    def rotate(x):  # (length, heads, width)
        half = x.shape[-1] // 2
        angle = positions[:, None] / 10_000 ** (torch.arange(half) / half)
        turn = torch.polar(torch.ones_like(angle), angle)[:, None]
        turned = torch.complex(x[..., :half], x[..., half:]) * turn
        return torch.cat([turned.real, turned.imag], dim=-1)

    angles = sigma * torch.exp(-torch.log(torch.tensor(10_000.0)) * torch.arange(128) / 128)
    c = linear(torch.cat([angles.cos(), angles.sin()]), "sigma_map.mlp.0")
    c = linear(c * c.sigmoid(), "sigma_map.mlp.2")
    c = c * c.sigmoid()
    x = tensors["vocab_embed.embedding"][ids]
    for n in range(2):
        block = f"blocks.{n}."
        a, b, gate, a2, b2, gate2 = linear(c, block + "adaLN_modulation").chunk(6)
        qkv = linear(norm(x, block + "norm1.weight") * (1 + b) + a, block + "attn_qkv")
        q, k, v = qkv.view(len(x), 3, heads, -1).unbind(1)
        q, k = rotate(q), rotate(k)
        weight = torch.einsum("ihd,jhd->hij", q, k) / q.shape[-1] ** 0.5
        weight = weight.masked_fill(~sees, -torch.inf).softmax(-1)
        found = torch.einsum("hij,jhd->ihd", weight, v).flatten(1)
        x = x + gate * linear(found, block + "attn_out")
        h = linear(norm(x, block + "norm2.weight") * (1 + b2) + a2, block + "mlp.0")
        h = 0.5 * h * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (h + 0.044715 * h**3)))
        x = x + gate2 * linear(h, block + "mlp.2")
    a, b = linear(c, "output_layer.adaLN_modulation").chunk(2)
    return linear(norm(x, "output_layer.norm_final.weight") * (1 + b) + a, "output_layer.linear")


@pytest.mark.parametrize("kind", ["mdlm", "sedd"])
def test_mdlms_layout(tmp_path, capsys, kind):
    tensors, words = mdlm(tmp_path / "published", kind)
    model = md.load(tmp_path / "published")
    tokens = model.domain.tokens(["the cat sat on the mat"])
    tokens[0, 2] = model.process.size
    ids = words("the cat sat on the mat").input_ids
    ids[2] = len(words)
    sigma = -torch.log(LEVEL.alpha[0]).float() if kind == "sedd" else torch.zeros(())
    want = independent(tensors, torch.tensor(ids), sigma)
    got = model.denoiser(tokens, LEVEL)[0]
    shown = model.denoiser.written
    assert torch.allclose(got[:, shown], want[:, model.denoiser.ids[shown]], atol=1e-5, rtol=1e-5)
    printed = does(capsys, "sample", tmp_path / "published", "--infill", "the cat", "--length", 12)
    assert printed.startswith("the cat") and "<|endoftext|>" not in printed


def test_bd3lms_layout(tmp_path, capsys):
    """Noisy and clean text side by side, and the same block by block with cached ones."""
    tensors, _ = mdlm(tmp_path / "published", "bd3lm")
    model = md.load(tmp_path / "published")
    x0 = model.domain.tokens(["a small bird sings in the old tree near the river and the mat"])[
        :, :12
    ]
    xt = x0.clone()
    xt[0, 1::2] = model.process.size
    ids = torch.cat([model.denoiser.ids, torch.tensor([model.denoiser.special.mask])])
    place = torch.arange(12).repeat(2)
    number, clean = place // 4, torch.arange(24) >= 12
    same = (number[:, None] == number) & (clean[:, None] == clean)
    offset = (number[:, None] > number) & clean & ~clean[:, None]
    causal = (number[:, None] >= number) & clean & clean[:, None]
    both = torch.cat([ids[xt[0]], ids[x0[0]]])
    want = independent(tensors, both, torch.zeros(()), place, same | offset | causal)[:12]
    got = model.denoiser(xt, LEVEL, {"x0": x0})[0]
    shown = model.denoiser.written
    assert x0.shape[1] == 12
    assert torch.allclose(got[:, shown], want[:, model.denoiser.ids[shown]], atol=1e-5, rtol=1e-5)
    reader = BlockReader(model.denoiser)
    for part in (slice(0, 4), slice(4, 8), slice(8, 12)):
        alone = reader(xt[:, part], LEVEL, {"real": xt[:, part] >= 0})[0]
        assert torch.allclose(alone, got[part], atol=1e-4)
        reader.append(x0[:, part])
    printed = does(capsys, "sample", tmp_path / "published", "--infill", "the cat", "--length", 30)
    assert printed.startswith("the cat")


def test_uniform_diffusion_is_refused_by_name(tmp_path, capsys):
    mdlm(tmp_path / "sedd", "sedd")
    path = tmp_path / "sedd" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "graph": {"type": "uniform"}}))
    assert "instead of masking them" in complains(capsys, "sample", path.parent)
    path.write_text(json.dumps({"model_type": "duo"}))
    assert "is a Duo model" in complains(capsys, "sample", path.parent)


# ------------------------------------------------------------------------ LLaDA, Dream


@pytest.fixture(scope="module", params=["llada", "dream"])
def chat(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return folder, *prompted(folder, request.param), request.param == "dream"


def open_logits(network, ids, shift):
    """Transformers' logits with open attention, read one place before in Dream."""
    ids = torch.tensor([ids])
    sees = torch.ones(1, 1, ids.shape[1], ids.shape[1], dtype=torch.bool)
    with torch.no_grad():
        found = network(input_ids=ids, attention_mask=sees).logits[0]
    return torch.cat([found[:1], found[:-1]]) if shift else found


def test_logits_with_open_attention(chat):
    folder, network, words, shift = chat
    model = md.load(folder)
    prompt = "<|user|>the cat<|answer|>"
    source = model.domain.source_tokens(["the cat", "a small bird sings"])
    answer = model.domain.tokens(["sat on the mat"]).repeat(2, 1)
    answer[:, 1] = model.process.size
    got = model.denoiser(answer, LEVEL, {"source": source})[0]
    ids = words(prompt).input_ids
    own = [*words("sat on the mat").input_ids, words.eos_token_id]
    own[1] = words.mask_token_id
    want = open_logits(network, ids + own, shift)[len(ids) :]
    shown = model.denoiser.written
    assert torch.allclose(got[:, shown], want[:, model.denoiser.ids[shown]], atol=1e-5, rtol=1e-5)
    assert bool(shown[END]) and int((~shown).sum()) == 3  # PAD, no UNKNOWN, the mask
    answer[:, -1] = 7
    changed = model.denoiser(answer, LEVEL, {"source": source})[0]
    assert not torch.allclose(changed[0], got[0])  # the last token reaches the first logits


def remasking(network, ids, words, shift, *, length, block, steps, scale=1.0):
    """LLaDA's low-confidence remasking at temperature 0, with tokens that can be written."""
    x = [*ids, *[words.mask_token_id] * length]
    never = [words.mask_token_id, *range(len(words), network.config.vocab_size)]
    for start in range(len(ids), len(x), block):
        for _ in range(steps * block // length):
            logits = open_logits(network, x, shift)
            if scale != 1:
                hidden = [*[words.mask_token_id] * len(ids), *x[len(ids) :]]
                without = open_logits(network, hidden, shift)
                logits = without + scale * (logits - without)
            logits[:, never] = -torch.inf
            best = logits.softmax(-1).max(-1)
            still = [p for p in range(start, start + block) if x[p] == words.mask_token_id]
            surest = sorted(still, key=lambda p, best=best: -float(best.values[p]))
            for place in surest[: length // steps]:
                x[place] = int(best.indices[place])
    return x[len(ids) :]


@pytest.mark.parametrize(("block", "steps", "scale"), [(16, 16, 1.0), (8, 8, 1.0), (4, 16, 1.5)])
def test_block_sampling_is_low_confidence_remasking(chat, block, steps, scale):
    folder, network, words, shift = chat
    model = md.load(folder)
    seen = []
    model.generate(
        [TextRequest(source="the cat")], answer_length=16, block_length=block, steps=steps,
        guidance_scale=scale, on_step=lambda number, tokens: seen.append(tokens[0].clone()),
    )  # fmt: skip
    ids = words("<|user|>the cat<|answer|>").input_ids
    want = remasking(network, ids, words, shift, length=16, block=block, steps=steps, scale=scale)
    got = model.denoiser.ids[seen[-1].clamp(max=model.process.size - 1)].tolist()
    if END in seen[-1] and len(seen) < steps:  # stops after the block of its END
        got, want = got[:block], want[:block]
    assert got[:16] == want


def test_answers_on_the_command_line(chat, tmp_path, capsys):
    folder, network, words, _ = chat
    options = ["--answer-length", 12, "--block-length", 4, "--steps", 6, "--temperature", 1,
               "--top-p", 0.9, "--sampler", "margin", "--guidance-scale", 1.5]  # fmt: skip
    printed = does(capsys, "sample", folder, "-n", 2, "--prompt", "the cat", *options)
    assert "<|" not in printed
    does(capsys, "convert", folder, tmp_path / "ours")
    assert (
        does(capsys, "sample", tmp_path / "ours", "-n", 2, "--prompt", "the cat", *options)
        == printed
    )
    plain = does(capsys, "sample", folder, "-n", 2, "--prompt", "the cat", *options, "--plain")
    assert plain != printed
    (tmp_path / "pairs.csv").write_text("text,source\nsat on the mat,the cat\nsings,a bird\n")
    measured = facts(capsys, "eval", tmp_path / "ours", tmp_path / "pairs.csv")["bound"]
    assert measured["given the prompt"] != measured["alone"]
    assert all(0 < one["per_token"] < one["per_text"] for one in measured.values())
    does(capsys, "convert", tmp_path / "ours", tmp_path / "back", "--to", "transformers")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back").state_dict()
    assert all(torch.equal(one, back[name]) for name, one in network.state_dict().items())
    special = "".join(words.all_special_tokens)
    assert "no words besides" in complains(capsys, "sample", folder, "--prompt", special)
    assert "at most 48" in complains(capsys, "sample", folder, "--prompt", "cat " * 90)


def test_bfloat16_stays(tmp_path):
    network, _ = prompted(tmp_path / "half", "llada", torch.bfloat16)
    model = md.load(tmp_path / "half")
    own = model.denoiser.network.model
    assert {one.dtype for one in own.parameters()} == {torch.bfloat16}
    assert own.model.rotary_emb.inv_freq.dtype == torch.float32
    assert torch.equal(own.lm_head.weight.float(), network.lm_head.weight.bfloat16().float())
    tensors, _ = read_tensors(tmp_path / "half" / "model.safetensors")
    assert len(tensors) == len(own.state_dict())
    shards = {"a.safetensors": [*tensors][::2], "b.safetensors": [*tensors][1::2]}
    for file, names in shards.items():
        save_file({name: tensors[name].clone() for name in names}, tmp_path / "half" / file)
    index = {"weight_map": {name: file for file, names in shards.items() for name in names}}
    (tmp_path / "half" / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "half" / "model.safetensors").unlink()
    again = md.load(tmp_path / "half").state_dict()
    assert all(torch.equal(one, again[name]) for name, one in model.state_dict().items())
    index["weight_map"]["x"] = "../b.safetensors"
    (tmp_path / "half" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="outside of its folder"):
        md.load(tmp_path / "half")


def test_training_lowers_the_loss(tmp_path):
    """One batch of prompts and answers, END learned up to the end of the batch."""
    prompted(tmp_path / "chat", "llada")
    model = md.load(tmp_path / "chat", trainable=True)
    batch = {"text": ["sat on the mat", "sings"], "source": ["the cat", "a bird"]}
    encoded = model.domain.encode(batch, None)
    assert bool((encoded.x0[1, -3:] == END).all())
    task = model.task()
    optimizer = torch.optim.Adam(model.denoiser.network.parameters(), 5e-3)
    losses = []
    for step in range(30):
        loss = task.losses(batch, torch.Generator().manual_seed(step))["denoising"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])

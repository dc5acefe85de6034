"""Tiny random models of transformers, with tokenizers of a few words, written as published ones."""

import json

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEXTS = [
    "the cat sat on the mat and the dog sat on the log",
    "a small bird sings in the old tree near the river",
    "unhappy cats and happy dogs are singing songs",
]
BERT = {"cls": "[CLS]", "sep": "[SEP]", "unk": "[UNK]", "pad": "[PAD]", "mask": "[MASK]"}
ROBERTA = {"cls": "<s>", "sep": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 48, "max_position_embeddings": 40}  # fmt: skip


def word_pieces(texts=TEXTS, size=90):
    """BERT's kind of tokenizer: word pieces in lower case."""
    words = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer(lowercase=True)
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.decoder = decoders.WordPiece()
    special = [*(BERT[name] for name in ("pad", "unk", "cls", "sep", "mask")), "[unused0]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=special[:5], show_progress=False, initial_alphabet=list("z")
    )
    words.train_from_iterator(texts, trainer)
    words.add_tokens(["[unused0]"])
    return words, BERT


def byte_pieces(special=ROBERTA):
    """GPT-2's and RoBERTa's kind of tokenizer: pieces of bytes, the space before a word in it."""
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=[*special.values()], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    words.train_from_iterator(TEXTS, trainer)
    return words, special


def wrapped(words, special, longest=38):
    """The tokenizer as transformers has it."""
    named = {f"{name}_token": token for name, token in special.items()}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, model_max_length=longest, **named
    )


def masked_lm(kind, folder, texts=TEXTS, pieces=90, scale=0.1):
    """Write a random masked language model of a kind; the model and its tokenizer."""
    torch.manual_seed(0)
    words = wrapped(*(byte_pieces() if kind == "roberta" else word_pieces(texts, pieces)))
    options = {**SHAPE, "vocab_size": len(words) + 3, "pad_token_id": words.pad_token_id}
    if kind == "distilbert":
        options |= {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
    if kind == "modernbert":
        ends = {"cls": words.cls_token_id, "sep": words.sep_token_id}
        ends |= {"bos": ends["cls"], "eos": ends["sep"]}
        options |= {f"{name}_token_id": number for name, number in ends.items()}
        options |= {"global_attn_every_n_layers": 2, "local_attention": 8}
    config = transformers.AutoConfig.for_model(kind, **options)
    model = transformers.AutoModelForMaskedLM.from_config(config).eval()
    with torch.no_grad():  # far from 0, so that differences show
        for one in model.parameters():
            one.add_(scale * torch.randn_like(one))
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return model, words


def shaken(module):
    """The tensors of a module, far from 0, so that differences show."""
    torch.manual_seed(1)
    return {
        name: one + 0.1 * torch.randn_like(one) if one.is_floating_point() else one
        for name, one in module.state_dict().items()
    }


def written(folder, config, tensors, words):
    """Write a folder as a hub has it."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: one.contiguous() for name, one in tensors.items()},
              folder / "model.safetensors", {"format": "pt"})  # fmt: skip
    words.save_pretrained(folder)
    return folder


GPT2 = {"eos": "<|endoftext|>"}
MDLM = {"model_type": "mdlm", "auto_map": {"AutoModelForMaskedLM": "modeling_mdlm.MDLM"},
        "hidden_dim": 32, "n_blocks": 2, "n_heads": 4, "cond_dim": 16, "dropout": 0.1,
        "model_length": 24, "time_conditioning": False}  # fmt: skip
LLADA_NAMES = [
    ("model.embed_tokens", "model.transformer.wte"), ("model.norm", "model.transformer.ln_f"),
    ("lm_head", "model.transformer.ff_out"), ("model.layers.", "model.transformer.blocks."),
    ("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ff_norm"),
    ("self_attn.o_proj", "attn_out"), ("self_attn.", ""), ("mlp.gate_proj", "ff_proj"),
    ("mlp.up_proj", "up_proj"), ("mlp.down_proj", "ff_out"),
]  # fmt: skip
CHAT = (
    "{% for message in messages %}{{ '<|user|>' + message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|answer|>' }}{% endif %}"
)


def mdlm(folder, kind="mdlm"):
    """Write the layout of MDLM, BD3-LM or SEDD with random weights; its tensors."""
    words = wrapped(*byte_pieces(GPT2), longest=24)
    rows, width, cond = len(words) + 1, 32, 16
    shapes = {"vocab_embed.embedding": (rows, width), "rotary_emb.inv_freq": (4,),
              "sigma_map.mlp.0.weight": (cond, 256), "sigma_map.mlp.0.bias": (cond,),
              "sigma_map.mlp.2.weight": (cond, cond), "sigma_map.mlp.2.bias": (cond,)}  # fmt: skip
    for n in range(2):
        own = {"norm1.weight": (width,), "attn_qkv.weight": (3 * width, width),
               "attn_out.weight": (width, width), "norm2.weight": (width,),
               "mlp.0.weight": (4 * width, width), "mlp.0.bias": (4 * width,),
               "mlp.2.weight": (width, 4 * width), "mlp.2.bias": (width,),
               "adaLN_modulation.weight": (6 * width, cond),
               "adaLN_modulation.bias": (6 * width,)}  # fmt: skip
        shapes |= {f"blocks.{n}.{name}": shape for name, shape in own.items()}
    shapes |= {"output_layer.norm_final.weight": (width,), "output_layer.linear.bias": (rows,),
               "output_layer.linear.weight": (rows, width),
               "output_layer.adaLN_modulation.weight": (2 * width, cond),
               "output_layer.adaLN_modulation.bias": (2 * width,)}  # fmt: skip
    torch.manual_seed(2)
    tensors = {name: 0.3 * torch.randn(shape) for name, shape in shapes.items()}
    named = {f"backbone.{name}": one for name, one in tensors.items()}
    config = {**MDLM, "vocab_size": rows}
    if kind == "bd3lm":
        config |= {"model_type": kind, "block_size": 4, "cross_attn": True, "adaln": True}
    if kind == "sedd":
        model = {"hidden_size": 32, "n_blocks": 2, "n_heads": 4, "cond_dim": 16, "length": 24}
        config, named = {"graph": {"type": "absorb"}, "tokens": rows - 1, "model": model}, tensors
    written(folder, config, named, words)
    return tensors, words


def prompted(folder, kind, dtype=torch.float32):
    """Write a random Llama as LLaDA or a random Qwen2 as Dream; the network and the tokenizer."""
    special = {"eos": "<|end|>", "pad": "<|end|>", "mask": "<|mask|>"}
    words, _ = byte_pieces({**special, "user": "<|user|>", "answer": "<|answer|>"})
    words = wrapped(words, special, longest=200)
    words.chat_template = CHAT
    shape = {"vocab_size": len(words) + 5, "hidden_size": 32, "intermediate_size": 48,
             "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
             "max_position_embeddings": 96, "rms_norm_eps": 1e-5,
             "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
             "tie_word_embeddings": False}  # fmt: skip
    made = transformers.AutoConfig.for_model({"llada": "llama", "dream": "qwen2"}[kind], **shape)
    network = transformers.AutoModelForCausalLM.from_config(made).eval()
    network.load_state_dict(shaken(network))
    tensors = {name: one.to(dtype) for name, one in network.state_dict().items()}
    config = {"model_type": "Dream", **shape, "rope_theta": 5e5, "auto_map": {"AutoModel": "x.Y"}}
    del config["rope_parameters"]
    if kind == "llada":
        for theirs, ours in LLADA_NAMES:
            tensors = {name.replace(theirs, ours): one for name, one in tensors.items()}
        config = {"model_type": "llada", "d_model": 32, "n_heads": 4, "n_kv_heads": 2,
                  "n_layers": 2, "mlp_hidden_size": 48, "embedding_size": len(words) + 5,
                  "vocab_size": len(words) + 5, "max_sequence_length": 96, "rope_theta": 5e5,
                  "rms_norm_eps": 1e-5, "auto_map": {"AutoModel": "x.Y"}}  # fmt: skip
    written(folder, {**config, "mask_token_id": words.mask_token_id}, tensors, words)
    return network, words

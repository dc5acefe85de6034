"""Masked diffusion beside an autoregressive transformer of equal size, trained as long.

    python -m benchmarks.autoregressive data/e2e/trainset.csv --minutes 6

Both are 5 blocks of width 192 over the same 800 words and train without meanings on the same
sentences, in the same batches, for the same CPU time of one thread, with a learning rate that rises
to 1e-3 and falls. The autoregressive one has a causal mask, and a KV cache when it writes. Nats are
those of a 4-gram of other held-out sentences, as ``multidiff eval`` has them, beside entropy and
distinct-2; speed is in tokens a CPU second, for one sentence at a time and for fifty. ``at equal
nats`` is the speed over that of the autoregressive model at the temperature whose nats are nearest.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.text_source import add_source, source_of
from multidiff.core.discrete.absorbing import MaskProcess
from multidiff.core.discrete.schedules import LogLinearMasks
from multidiff.nn.token_denoiser import TokenDenoiser
from multidiff.nn.transformer import KVCache, Transformer
from multidiff.text.data.vocabulary import END, FIRST, PAD, UNKNOWN, WordVocabulary
from multidiff.text.masked.model import MaskedText, TokenDomain
from multidiff.text.metrics.comparison import ORDER
from multidiff.text.metrics.eval_split import eval_split
from multidiff.text.metrics.ngram import NGramModel
from multidiff.text.metrics.scores import distinct, entropy
from multidiff.text.request import TextRequest

SIZE, LENGTH, WIDTH, LAYERS, HEADS = 800, 48, 192, 5, 4
BATCH, RATE, WARMUP = 64, 1e-3, 0.05
STEPS = (2, 4, 8, 16, 0)
TEMPERATURES = (0.6, 0.7, 0.8, 0.9, 1.0)
SINGLY = 20  # sentences written one at a time, for their speed
# Nats a token by which two systems may differ where their speeds are compared.
EQUAL_NATS = 0.25


class CausalText(nn.Module):
    """An autoregressive transformer: each token from those before it; END begins and ends."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(SIZE, WIDTH)
        self.positions = nn.Embedding(LENGTH, WIDTH)
        for one in (self.words, self.positions):
            nn.init.normal_(one.weight, std=0.02)
        self.body = Transformer(WIDTH, LAYERS, HEADS)
        self.bias = nn.Parameter(torch.zeros(SIZE))

    def forward(self, tokens: Tensor, memory: KVCache | None = None) -> Tensor:
        """Return the logits of the token after each."""
        first, count = 0 if memory is None else memory.positions, tokens.shape[1]
        positions = torch.arange(first, first + count)
        before = positions[:, None] >= torch.arange(first + count)
        keys = before.expand(len(tokens), -1, -1)
        x = self.words(tokens) + self.positions(positions)
        found = self.body(x, keys=keys, positions=positions, memory=memory)
        return F.linear(found, self.words.weight, self.bias)

    def nats(self, tokens: Tensor) -> Tensor:
        """Return the nats of each text, END included; rows are closed by END and padded."""
        read = F.pad(tokens[:, :-1], (1, 0), value=END)
        logits = self(read.masked_fill(read == PAD, END)).float()
        cost = F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none")
        return (cost.view_as(tokens) * (tokens != PAD)).sum(dim=1)

    @torch.no_grad()
    def write(self, count: int, temperature: float, seed: int) -> list[list[int]]:
        """Return texts, drawn from left to right."""
        rng, memory = torch.Generator().manual_seed(seed), KVCache()
        last, rows = torch.full((count, 1), END), []
        ended = torch.zeros(count, dtype=torch.bool)
        never = torch.tensor([PAD, UNKNOWN])
        while len(rows) < LENGTH - 1 and not bool(ended.all()):
            logits = self(last, memory)[:, -1].index_fill(1, never, -math.inf)
            last = torch.multinomial((logits / temperature).softmax(dim=1), 1, generator=rng)
            ended = ended | (last[:, 0] == END)
            rows.append(last[:, 0])
        texts = torch.stack(rows, dim=1).tolist()
        return [row[: row.index(END)] if END in row else row for row in texts]


def batches(rows: Sequence[Sequence[int]], seed: int) -> Iterator[Tensor]:
    """Yield batches of sentences of similar lengths, each closed by END, for ever."""
    rng = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(rows), generator=rng).split(50 * BATCH)
        for some in order:
            near = sorted(some.tolist(), key=lambda row: len(rows[row]))
            parts = [near[at : at + BATCH] for at in range(0, len(near), BATCH)]
            for at in torch.randperm(len(parts), generator=rng).tolist():
                yield padded([rows[row] for row in parts[at]])


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Return token rows, each closed by END, padded to one length."""
    longest = 1 + max(map(len, rows))
    return torch.tensor([[*row, END] + [PAD] * (longest - 1 - len(row)) for row in rows])


def trained(network: nn.Module, loss: Callable[[Tensor], Tensor], data: Any, minutes: float) -> int:
    """Train for some minutes of CPU time; return the number of steps."""
    weights = [one for one in network.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(weights, betas=(0.9, 0.98), weight_decay=0.01)
    began, steps, done = time.process_time(), 0, 0.0
    network.train()
    while done < 1:
        rate = RATE * min(done / WARMUP, 1) * (1 + math.cos(math.pi * done)) / 2
        for group in optimizer.param_groups:
            group["lr"] = max(rate, 1e-6)
        with torch.autocast("cpu", torch.bfloat16):
            cost = loss(next(data))
        optimizer.zero_grad()
        cost.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        steps, done = steps + 1, (time.process_time() - began) / 60 / minutes
    network.eval()
    return steps


def masked_model(vocabulary: WordVocabulary) -> MaskedText:
    """Return an untrained masked model of the same size."""
    return MaskedText(
        TokenDomain(vocabulary, LENGTH),
        MaskProcess(SIZE, LogLinearMasks()),
        TokenDenoiser(SIZE, WIDTH, LAYERS, HEADS, LENGTH),
    )


def speeds(write: Callable[[int, int], list[list[int]]]) -> dict[str, float]:
    """Return tokens a CPU second, of sentences one at a time and of fifty at once."""
    found = {}
    for name, count, rounds in (("tokens_s_1", 1, SINGLY), ("tokens_s_50", 50, 4)):
        write(count, 0)
        began = time.process_time()
        made = [one for n in range(rounds) for one in write(count, 1000 * (n + 1))]
        found[name] = sum(map(len, made)) / (time.process_time() - began)
    return found


def main() -> None:
    """Train both, and print a table or JSON."""
    reader = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_source(reader)
    reader.add_argument("--minutes", type=float, default=6.0)
    reader.add_argument("--num", type=int, default=300)
    reader.add_argument("--weights", type=Path, help="folder of weights, kept and used again")
    reader.add_argument("--json", action="store_true")
    given = reader.parse_args()
    torch.manual_seed(0)
    source = source_of(given)
    vocabulary = WordVocabulary(SIZE, source)
    split = eval_split(source, vocabulary, given.num)
    rows = [one for one in split.trained if FIRST <= len(one) < LENGTH]
    causal, model = CausalText(), masked_model(vocabulary)
    task = model.task()

    def bound(tokens: Tensor) -> Tensor:
        texts = [""] * len(tokens)
        prepared = [row[(row != PAD) & (row != END)].numpy() for row in tokens]
        losses = task.losses({"text": texts, "text_tokens": prepared}, None)
        return sum(losses.values(), torch.zeros(())).mean()

    def likelihood(tokens: Tensor) -> Tensor:
        return causal.nats(tokens).sum() / (tokens != PAD).sum()

    found: dict[str, Any] = {"weights": {}, "steps": {}}
    for name, network, loss in (
        ("autoregressive", causal, likelihood),
        ("masked", task, bound),
    ):
        found["weights"][name] = sum(one.numel() for one in network.parameters())
        kept = None if given.weights is None else given.weights / f"{name}.safetensors"
        if kept is not None and kept.is_file():
            network.load_state_dict(load_file(kept))
            network.eval()
            continue
        found["steps"][name] = trained(network, loss, batches(rows, 0), given.minutes)
        if kept is not None:
            save_file(network.state_dict(), kept)
    held = split.fitting(LENGTH, given.num, "num")
    texts, tokens = [split.texts[row] for row in held], [split.real[row] for row in held]
    with torch.no_grad():
        exact = sum(float(causal.nats(padded([one]))) for one in tokens)
        found["held_out_nats"] = {
            "autoregressive": exact / sum(len(one) + 1 for one in tokens),
            "masked, at most": model.nats_per_token(texts, [{}] * len(texts))["total"],
        }
    ngram = NGramModel(split.other, ORDER)
    table = found["systems"] = compared(causal, model, ngram, given.num)
    table["real"] = described(split.real, ngram)
    if given.json:
        print(json.dumps(found, indent=1))
        return
    for name in ("weights", "steps", "held_out_nats"):
        print(name, found[name])
    keys = ("nats_per_token", "entropy", "distinct_2", "tokens_s_1", "tokens_s_50", "at equal nats")
    print(f"{'':>34}" + "".join(f"{key:>16}" for key in keys))
    for name, one in table.items():
        print(f"{name:>34}" + "".join(f"{one.get(key, math.nan):16.3f}" for key in keys))


def described(made: Sequence[Sequence[int]], ngram: NGramModel) -> dict[str, float]:
    """Return nats a token and variety of texts."""
    return {
        "nats_per_token": ngram.nats_per_token(made),
        "entropy": entropy(made),
        "distinct_2": distinct(made, 2),
    }


def compared(
    causal: CausalText, model: MaskedText, ngram: NGramModel, num: int
) -> dict[str, dict[str, float]]:
    """Return figures of samples and speeds of both models, by system and setting."""
    words, found = model.domain.vocabulary.numbers, {}

    def masked(count: int, seed: int, **options: Any) -> list[list[int]]:
        made = model.generate([TextRequest()] * count, seed=seed, **options)
        return [words(text) for text in made]

    speed = speeds(lambda count, seed: causal.write(count, 1.0, seed))
    lines = {}
    for temperature in TEMPERATURES:
        name = f"autoregressive, temperature {temperature:g}"
        lines[name] = described(causal.write(num, temperature, 0), ngram) | speed
    for steps in STEPS:
        options: dict[str, Any] = {"steps": steps}
        fast = speeds(lambda count, seed, o=options: masked(count, seed, **o))
        for temperature in (0.8, 1.0):
            made = described(masked(num, 0, temperature=temperature, **options), ngram)
            near = min(
                lines.values(), key=lambda one: abs(one["nats_per_token"] - made["nats_per_token"])
            )
            apart = abs(near["nats_per_token"] - made["nats_per_token"])
            ratio = fast["tokens_s_50"] / near["tokens_s_50"] if apart <= EQUAL_NATS else math.nan
            name = f"masked, {steps or 'all'} steps, temperature {temperature:g}"
            found[name] = made | fast | {"at equal nats": ratio}
    return {**lines, **found}


if __name__ == "__main__":
    main()

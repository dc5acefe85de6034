"""A training step of a text denoiser, compared with a BERT encoder of equal size.

Both read noisy embeddings, predict the clean ones and take the squared error, the backward pass
and the step of the same AdamW (fused). The encoder is ``transformers``' with random weights, with
the projections around it that Diffusion-LM has. Ours is conditioned on the noise level in every
norm and has RoPE; the encoder gets the level as one more embedding. Then the
package's training task: tokens to embeddings, noise, all losses of the paper, compared with the
same losses on the encoder. Reported in training sentences per CPU second, ratios to the
encoder's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.timing import Row, counted, in_alternation, on_threads, rows_of
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.schedules import BetaSchedule, NoiseLevel
from multidiff.core.random import generators
from multidiff.core.task import DiffusionTask
from multidiff.nn.embeddings import sinusoid
from multidiff.text.diffusion_lm.denoiser import TextDenoiser
from multidiff.text.diffusion_lm.domain import EmbeddedDomain

PART = "text-step"
OURS, THEIRS = "multidiff", "transformers BertModel"
STATE, WORDS = 16, 800
CLOCK = time.process_time


def measure(
    threads: int,
    rounds: int,
    *,
    batch: int = 32,
    length: int = 32,
    width: int = 192,
    layers: int = 4,
) -> list[Row]:
    """Measure the networks alone, and the training task.

    Args:
        threads: number of CPU threads.
        rounds: number of steps of each.
        batch: number of sentences in a step.
        length: length of the sentences.
        width: width of the transformers.
        layers: number of their blocks.
    """
    reported = f"{layers} layers of {width}, {batch} sentences of {length}, {counted(threads)}"
    rows = []
    with on_threads(threads):
        for case, steps in (
            ("network", _network_steps(batch, length, width, layers)),
            ("task", _task_steps(batch, length, width, layers)),
        ):
            seconds = in_alternation(steps, rounds, CLOCK)
            rows += rows_of(
                PART, f"{case}, {reported}", seconds, THEIRS, "sentences/CPU s", lambda s: batch / s
            )
    return rows


class BertDenoiser(nn.Module):
    """The published network of Diffusion-LM, in miniature."""

    def __init__(self, width: int, layers: int, length: int):
        from transformers import BertConfig, BertModel

        super().__init__()
        config = BertConfig(
            vocab_size=2, hidden_size=width, num_hidden_layers=layers, num_attention_heads=4,
            intermediate_size=4 * width, max_position_embeddings=length,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        bert: Any = BertModel(config, add_pooling_layer=False)
        self.read = nn.Sequential(nn.Linear(STATE, width), nn.Tanh(), nn.Linear(width, width))
        self.time = nn.Sequential(
            nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
        )
        self.positions = nn.Embedding(length, width)
        self.norm = nn.LayerNorm(width)
        self.encoder = bert.encoder
        self.say = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, STATE))
        self.width = width

    def forward(self, xt: Tensor, level: NoiseLevel, condition: Any = None) -> Tensor:
        """Return the prediction."""
        time_embedding = self.time(sinusoid(1000 * level.time, self.width))[:, None]
        x = self.read(xt) + self.positions.weight[: xt.shape[1]] + time_embedding
        return self.say(self.encoder(self.norm(x)).last_hidden_state)


def _denoisers(width: int, layers: int, length: int) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    ours = TextDenoiser(STATE, width, layers, 4, length, self_conditioned=False)
    return {OURS: ours, THEIRS: BertDenoiser(width, layers, length)}


def _stepped(module: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], float]:
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)

    def step() -> float:
        optimizer.zero_grad()
        found = loss()
        found.backward()
        optimizer.step()
        return float(found.detach())

    return step


def _network_steps(
    batch: int, length: int, width: int, layers: int
) -> dict[str, Callable[[], float]]:
    xt, x0 = torch.randn(2, batch, length, STATE)
    level = BetaSchedule.sqrt(2000).at(torch.rand(batch))
    return {
        name: _stepped(one, lambda one=one: F.mse_loss(one(xt, level), x0))
        for name, one in _denoisers(width, layers, length).items()
    }


class Numbers:
    """Texts that are numbers already."""

    size = WORDS

    def numbers(self, text: str) -> list[int]:
        """Return the numbers of a text."""
        return [int(word) for word in text.split()]


def _task_steps(batch: int, length: int, width: int, layers: int) -> dict[str, Callable[[], float]]:
    rows = torch.randint(3, WORDS, (batch, length - 1)).tolist()
    reported = {"text": [" ".join(map(str, row)) for row in rows]}
    process = GaussianProcess(BetaSchedule.sqrt(2000), "x0")
    steps = {}
    for name, denoiser in _denoisers(width, layers, length).items():
        vocabulary: Any = Numbers()
        task = DiffusionTask(EmbeddedDomain(vocabulary, STATE, length), process, denoiser)

        def loss(task: DiffusionTask = task) -> Tensor:
            losses = task.losses(reported, generators(range(batch)))
            return torch.stack([one.mean() for one in losses.values()]).sum()

        steps[name] = _stepped(task, loss)
    return steps

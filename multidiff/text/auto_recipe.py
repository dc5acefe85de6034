"""A recipe for a file of texts and a time of training (``multidiff train --data FILE``).

Lengths, network and number of steps by these rules:

- texts are as long as the longest, up to 256 tokens; running text is read in chunks of 128 tokens,
  by block diffusion;
- the network is the largest of :data:`NETWORKS` that sees ten tokens of training for each weight of
  its blocks in the time, at the rate measured on this machine, and has no more weights than twenty
  for each token of the text;
- training ends after the time, after a thousand passes, or when the held-out loss has not fallen
  for a third of the steps; the weights of its lowest are kept.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from multidiff.text.data.contents import Contents, VocabularyChoice, choose_vocabulary, contents_of
from multidiff.text.data.listing import TextSource
from multidiff.utils.errors import InputError

# Width, blocks and attention heads.
NETWORKS = (
    (64, 2, 4), (96, 3, 4), (128, 4, 4), (192, 5, 4), (256, 6, 4), (384, 8, 6), (512, 10, 8),
    (768, 12, 12),
)  # fmt: skip
TRIED_FIRST = (128, 4, 4)
TOKENS_PER_WEIGHT, WEIGHTS_PER_TOKEN = 10, 20
CHUNK, BLOCK, MOST_LENGTH = 128, 4, 256
TOKENS_A_STEP, MOST_PASSES = 2500, 1000
# Fraction of the time that steps take; validations, checkpoints and the end take the others.
STEPPING = 0.85
LOOKS = 15  # validations
# Sampler and temperature of each kind of text.
SAMPLING = {
    "running": ("confidence", 1.2), "sentences": ("random", 0.8), "pairs": ("confidence", 0.5),
}  # fmt: skip
Rate = Callable[[str], float]


@dataclass(frozen=True)
class Plan:
    """Plan of a training on a file.

    Attributes:
        contents: the texts.
        vocabulary: their tokens.
        minutes: time of training.
        length: tokens of the longest text, END included, or of a chunk.
        source_length: tokens of the longest source; 0 without sources.
        batch_size: texts in a batch.
        tokens: tokens of the training texts.
        network: width, blocks and heads.
        steps: number of steps.
    """

    contents: Contents
    vocabulary: VocabularyChoice
    minutes: float
    length: int
    source_length: int
    batch_size: int
    tokens: int
    network: tuple[int, int, int] = TRIED_FIRST
    steps: int = 1

    @property
    def tokens_a_step(self) -> int:
        """Return the number of tokens of an average batch."""
        return max(1, self.batch_size * self.tokens // self.count)

    @property
    def dropout(self) -> float:
        """Return the dropout: more where the weights are many for the text."""
        return 0.1 if self.tokens * WEIGHTS_PER_TOKEN > _weights(NETWORKS[0]) else 0.3

    @property
    def count(self) -> int:
        """Return the number of training texts or chunks."""
        running = self.contents.kind == "running"
        return max(1, self.tokens // self.length) if running else len(self.contents.trained)

    def with_network(self, network: tuple[int, int, int], steps: int = 1) -> Plan:
        """Return the plan with another network and number of steps."""
        return replace(self, network=network, steps=steps)


def planned(path: str, minutes: float) -> Plan:
    """Return the plan for a file; network and steps are still to be chosen.

    Raises:
        InputError: if the file cannot be read or has too few texts, or the time is too short.
    """
    if not 0.1 <= minutes < math.inf:
        raise InputError(f"--minutes {minutes:g}: must be 0.1 or more")
    contents = contents_of(path)
    vocabulary = choose_vocabulary(contents, minutes)
    counts = [len(vocabulary.split(text)) for text in contents.trained]
    source_length = 0
    if contents.kind == "running":
        length, batch = CHUNK, TOKENS_A_STEP // CHUNK
        if len(vocabulary.split(contents.held_out[0])) < 2 * CHUNK:
            raise InputError(f"{path}: {counts[0]} tokens of running text are too few; give more")
    else:
        length = _longest(counts)
        batch = round(TOKENS_A_STEP / max(1, sum(counts) / len(counts)))
        batch = max(4, min(batch, 128, len(counts) // 4))
        if contents.kind == "pairs":
            source_length = _longest([len(vocabulary.split(one)) for one in contents.sources])
    return Plan(contents, vocabulary, minutes, length, source_length, batch, sum(counts))


def _longest(counts: list[int]) -> int:
    """Return the length of the longest text, END included, or the most that is read."""
    return min(MOST_LENGTH, max(counts)) + 1


def chosen(plan: Plan, seconds_a_step: Rate, began: float) -> Plan:
    """Return the plan with the network and the steps that fit the time.

    Args:
        plan: the plan.
        seconds_a_step: function from a recipe to the seconds that one of its steps takes.
        began: when the command began, by :func:`time.monotonic`.
    """
    first = plan.with_network(TRIED_FIRST)
    rate = _cost(first) / seconds_a_step(recipe_text(first))
    seconds = _left(plan, began)
    networks = [NETWORKS[0]]
    for one in NETWORKS:
        weights, cost = _weights(one), _cost(plan.with_network(one))
        seen = seconds * rate / cost * plan.tokens_a_step
        if seen >= TOKENS_PER_WEIGHT * weights and weights <= WEIGHTS_PER_TOKEN * plan.tokens:
            networks.append(one)
    plan = plan.with_network(networks[-1])
    steps = int(_left(plan, began) / seconds_a_step(recipe_text(plan)))
    most = math.ceil(MOST_PASSES * plan.count / plan.batch_size)
    return plan.with_network(plan.network, max(20, min(steps, most)))


def _left(plan: Plan, began: float) -> float:
    """Return the seconds that steps can take, and at least a tenth of the time."""
    return max(0.1, STEPPING - (time.monotonic() - began) / (60 * plan.minutes)) * 60 * plan.minutes


def _weights(network: tuple[int, int, int]) -> int:
    """Return the number of weights of a network's blocks."""
    width, layers, _ = network
    return 12 * layers * width * width


def _cost(plan: Plan) -> float:
    """Return the cost of a step, up to a factor: weights with the table of tokens, by tokens."""
    twice = 2 if plan.contents.kind == "running" else 1
    table = plan.vocabulary.size * plan.network[0]
    return plan.tokens_a_step * (twice * _weights(plan.network) + table)


def source_text(source: TextSource) -> str:
    """Return a source as a YAML mapping on one line."""
    usual = {name: field.default for name, field in TextSource.__dataclass_fields__.items()}
    given = {key: one for key, one in asdict(source).items() if one != usual[key]}
    return json.dumps({"path": source.path, **given}, ensure_ascii=False)


def recipe_text(plan: Plan) -> str:
    """Return the plan as a recipe, with the reasons as comments."""
    width, layers, heads = plan.network
    found, words, steps = plan.contents, plan.vocabulary, plan.steps
    running, pairs = found.kind == "running", found.kind == "pairs"
    options = "".join(f"\n      {key}: {json.dumps(one)}" for key, one in words.options.items())
    chunks = f"use: TextChunks, source: *source, length: {_chunk(plan)}"
    examples = chunks if running else f"use: Sentences, source: *source{_limit(plan)}"
    sampler, temperature = SAMPLING[found.kind]
    source = f", source_length: {plan.source_length}" if pairs else ""
    reader = f", sources: *size{source}, source_layers: {layers}" if pairs else ""
    block = f", block: {BLOCK}" if running else ""
    process = "BlockMaskProcess" if running else "MaskProcess"
    grouped = 1 if running or plan.count < 100 * plan.batch_size else 20
    look = max(20, steps // LOOKS)
    return f"""\
# multidiff train --data {found.source.path} --minutes {plan.minutes:g}
# {found.kind}: {plan.count} texts or chunks, {plan.tokens} tokens;
# {words.unknown:.2%} of the held-out tokens are unknown.
# {_weights(plan.network) / 1e6:.2f} million weights in the blocks;
# {steps * plan.tokens_a_step / 1e6:.1f} million tokens in {steps} steps.
model:
  use: MaskedText
  domain:
    use: TokenDomain
    vocabulary:
      use: {words.use}
      size: &size {words.size}{options}
      source: &source {source_text(found.source)}
    length: &length {plan.length}
    source_length: {plan.source_length}
    ends: {json.dumps(not running)}
  process: {{use: {process}{block}, size: *size, schedule: {{use: LogLinearMasks}}}}
  denoiser:
    {{use: TokenDenoiser, size: *size, length: *length, dropout: {plan.dropout}{reader}{block},
     width: {width}, layers: {layers}, heads: {heads}}}
  sampling: {{sampler: {sampler}, temperature: {temperature}}}
data:
  use: Batches
  batch_size: &batch {plan.batch_size}
  group_by_length: {grouped}
  examples: {{{examples}}}
validation:
  use: Batches
  batch_size: *batch
  shuffle: false
  examples: {{{examples}, held_out: true}}
trainer:
  use: Trainer
  steps: {steps}
  learning_rate: {min(2e-3, 0.256 / width):.2e}
  warmup_steps: {min(300, steps // 10)}
  decay: cosine
  decay_from: 0.3
  betas: [0.9, 0.98]
  weight_decay: 0.01
  ema_decay: {min(0.999, max(0.9, 1 - 20 / steps)):.4f}
  log_every: {max(1, look // 2)}
  save_every: {max(1, steps // 4)}
  validate_every: {look}
  validation_batches: 8
  keep_best: denoising
  early_stopping: {{metric: denoising, patience: {LOOKS // 3}}}
"""


def _chunk(plan: Plan) -> int:
    """Return the number of characters of a chunk of running text."""
    whole = plan.contents.trained[0]
    return max(1, int(plan.length * len(whole) / plan.tokens))


def _limit(plan: Plan) -> str:
    """Return the option that skips texts that are too long; words alone are counted by it."""
    return f", longest: {plan.length - 1}" if plan.vocabulary.use == "WordVocabulary" else ""

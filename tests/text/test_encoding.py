"""Hidden states of texts, texts that appear while they are written, errors of bounds."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from commands import complains, does

import multidiff as md
from multidiff.cli.parsing import LivePrinter
from multidiff.core.gaussian.timesteps import uniform_timesteps
from multidiff.text.metrics import comparison
from multidiff.text.metrics.causal import CausalReading
from multidiff.text.metrics.comparison import language_model_facts, mean_nats
from multidiff.utils.report import Report

TEXTS = ["the eagle is a pub .", "it is near the river and it serves italian food ."]


@pytest.fixture(scope="module")
def masked():
    return md.load("masked")


def test_hidden_states_are_those_of_the_logits(masked):
    tokens = masked.domain.tokens(TEXTS[1:])
    level = masked.process.levels(uniform_timesteps(1))[-1]
    states = masked.denoiser.hidden(tokens, level, {"real": tokens >= 0})
    head = masked.denoiser.words.weight[: masked.denoiser.size]
    logits = masked.denoiser(tokens, level, {"real": tokens >= 0})
    assert torch.allclose(F.linear(states, head, masked.denoiser.bias), logits, atol=1e-5)


def test_embeddings_do_not_depend_on_the_batch(masked):
    pooled = masked.encode(TEXTS)
    assert pooled.shape == (2, 192)
    alone = masked.encode(TEXTS[:1])
    assert torch.allclose(pooled[:1], alone, atol=1e-5)
    each = masked.encode(TEXTS, pooled=False)
    counts = [len(masked.domain.vocabulary.numbers(text)) for text in TEXTS]
    assert [len(one) for one in each] == counts
    assert torch.allclose(each[1].mean(dim=0), pooled[1], atol=1e-5)
    nearer, farther = masked.encode(["the eagle is a pub .", TEXTS[1]])
    query = masked.encode(["the eagle is a restaurant ."])[0]
    near, far = (float(F.cosine_similarity(query, one, dim=0)) for one in (nearer, farther))
    assert near > far


def test_running_text_has_hidden_states():
    model = md.load("shakespeare")
    one = model.encode(["To be, or not to be"], pooled=False)[0]
    # Block by block: later characters do not change earlier states.
    other = model.encode(["To be, or not to fly"], pooled=False)[0]
    assert torch.allclose(one[:16], other[:16], atol=1e-4) and one.shape == (19, 192)


@pytest.mark.parametrize("name", ["masked", "shakespeare"])
def test_a_text_that_appears_is_the_same(name, capsys):
    words = ("sample", name, "--length", "12", "--steps", "4", "-n", "2", "--seed", "3")
    assert does(capsys, *words, "--stream") == does(capsys, *words)


def test_parts_of_a_line(capsys):
    live = LivePrinter(goes_on=False)
    live.part("The ea")
    live.part("gle")
    live("The eagle.")
    live.part("It ,")
    live("It, too")
    assert capsys.readouterr().out == "The eagle.\nIt ,\nIt, too\n" and live.count == 2


def test_streams_that_cannot_be(capsys):
    words = ("sample", "masked", "--stream")
    for more in (["--json"], ["--num-candidates", 2], ["--show-steps"]):
        assert "--stream" in complains(capsys, *words, *more)


def test_errors_of_a_ratio():
    exact = mean_nats([2.0, 4.0, 6.0], [1, 2, 3])
    assert exact == {"per_token": 2, "per_text": 4, "error": 0}
    rng = np.random.default_rng(0)
    counts = rng.integers(5, 15, (2000, 50))
    nats = counts * 1.5 + rng.normal(0, 3, counts.shape)
    means = nats.sum(1) / counts.sum(1)
    errors = [mean_nats(a, b)["error"] for a, b in zip(nats[:200], counts[:200], strict=True)]
    assert np.mean(errors) == pytest.approx(means.std(), rel=0.1)


def test_generative_perplexity_has_the_entropy_beside_it(monkeypatch, tmp_path):
    def reading(texts, path):
        return CausalReading(len(texts), np.eye(60)[: 30 * len(texts)])

    monkeypatch.setattr(comparison, "causal_reading", reading)
    report = Report(facts={"texts": ["a"], "samples": {"entropy": 2.5}, "real": {"entropy": 3.5}})
    split: Any = SimpleNamespace(texts=["a", "b"])
    language_model_facts(tmp_path, split, report)
    found = report.facts["language_model"]
    assert found["samples"] == {"nats": 1, "perplexity": math.e, "entropy": 2.5}
    assert found["real"]["perplexity"] == pytest.approx(math.e**2)
    assert "mauve" not in found["samples"]  # 30 texts are too few
    monkeypatch.setattr(comparison, "LEAST_FEATURES", 30)
    language_model_facts(tmp_path, split, report)
    assert 0 < report.facts["language_model"]["samples"]["mauve"] <= 1

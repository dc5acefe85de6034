"""The bound on texts, against the exact likelihood of a toy distribution."""

import itertools
import math

import pytest
import torch
from test_embedded import Listed
from torch import nn

import multidiff as md
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.schedules import BetaSchedule
from multidiff.core.gaussian.timesteps import uniform_timesteps
from multidiff.text.diffusion_lm.denoiser import TextDenoiser
from multidiff.text.diffusion_lm.domain import EmbeddedDomain
from multidiff.text.diffusion_lm.likelihood import nats_per_token, text_bound
from multidiff.text.diffusion_lm.model import TextDiffusion

WORDS = ("red", "wine", "white")
# A joint distribution of two words that is no product of two.
JOINT = {("red", "wine"): 0.5, ("white", "wine"): 0.2, ("wine", "white"): 0.2, ("red", "red"): 0.1}


class Exact(nn.Module):
    """E[x_0 | x_t] under the toy distribution, or the embedding's mean where x_0 is clamped."""

    def __init__(self, domain, joint):
        super().__init__()
        self.domain, self.state_width, self.self_conditioned = domain, domain.width, False
        self.source = None
        texts = [" ".join(words) for words in joint]
        self.known = domain.embed(domain.tokens(texts)).detach()
        self.logs = torch.tensor([math.log(ratio) for ratio in joint.values()])

    def forward(self, xt, level, condition=None):
        alpha, sigma = (part[0].item() for part in (level.alpha, level.sigma))
        own = self.domain.first_std**2
        total = alpha**2 * own + sigma**2
        distance = xt[:, None] - alpha * self.known[None]
        logs = self.logs - distance.square().flatten(2).sum(dim=2) / (2 * total)
        ratios = logs.softmax(dim=1)[..., None, None]
        refined = self.known[None] + alpha * own / total * distance
        return (ratios * refined).sum(dim=1)


def toy(joint=None, width=6, steps=1000):
    torch.manual_seed(1)
    domain = EmbeddedDomain(Listed(WORDS), width=width, length=3, norm=3.0, first_std=0.1)
    process = GaussianProcess(BetaSchedule.linear(steps), "x0")
    exact = Exact(domain, JOINT if joint is None else joint)
    return TextDiffusion(domain, process, exact)


def bound_of(model, texts, steps=1000):
    found = text_bound(model, texts, [{}] * len(texts), range(len(texts)), uniform_timesteps(steps))
    words = found.pop("words")
    # All lengths are as likely in an untrained domain: 0 to 3.
    length = found.pop("length")
    torch.testing.assert_close(length, torch.full_like(length, math.log(4)))
    assert words.tolist() == [3] * len(texts)  # END counts
    return sum(found.values()), found


COPIES = 60


@pytest.fixture(scope="module")
def repeated():
    return [" ".join(words) for words in JOINT for _ in range(COPIES)]


def each(values):
    """Mean and its standard error for each text."""
    rows = values.view(len(JOINT), COPIES)
    return rows.mean(dim=1), rows.std(dim=1) / math.sqrt(COPIES)


@pytest.mark.usefixtures("unchecked_signatures")
def test_the_bound_is_the_exact_likelihood_of_a_toy(repeated):
    total, terms = bound_of(toy(), repeated)
    truth = torch.tensor([-math.log(JOINT[tuple(text.split())]) for text in repeated])
    mean, error = each(total - truth)
    assert float(error.max()) < 0.8
    assert (mean.abs() < 4 * error + 0.05).all(), (mean, error)
    assert all(bool(term.isfinite().all()) for term in terms.values())
    assert float(terms["prior"].abs().max()) < 0.01


@pytest.mark.usefixtures("unchecked_signatures")
def test_fewer_steps_bound_looser(repeated):
    model = toy()
    few, many = (float(bound_of(model, repeated, n)[0].mean()) for n in (4, 100))
    assert many + 1 < few


@pytest.mark.usefixtures("unchecked_signatures")
def test_a_wrong_model_has_more_nats_by_as_much_as_it_is_wrong(repeated):
    """Under the same noise the difference is that of the exact likelihoods, nearly free of it."""
    flat = toy(dict.fromkeys(itertools.product(WORDS, WORDS), 1 / 9))
    right, wrong = (bound_of(model, repeated, 200)[0] for model in (toy(), flat))
    mean, error = each(wrong - right)
    truth = torch.tensor([math.log(9 * ratio) for ratio in JOINT.values()])
    assert float(error.max()) < 0.05
    assert ((mean - truth).abs() < 4 * error + 0.03).all(), (mean, truth, error)


def test_an_estimate_that_is_clamped_is_completed(repeated):
    """A network that tells the words alone bounds as well as one that tells the whole state."""
    plain = toy()

    class Words(Exact):
        """Ten times the mean embedding's logits, which soft clamping turns into the mean."""

        def forward(self, xt, level, condition=None):
            alpha, sigma = (part[0].item() for part in (level.alpha, level.sigma))
            total = alpha**2 * self.domain.first_std**2 + sigma**2
            distance = xt[:, None] - alpha * self.known[None]
            logs = self.logs - distance.square().flatten(2).sum(dim=2) / (2 * total)
            ratios = logs.softmax(dim=1)  # of the four texts
            table = self.domain.embeddings()
            tokens = self.domain.tokens([" ".join(words) for words in JOINT])
            each = torch.zeros(len(xt), 3, len(table))
            for row in range(len(JOINT)):
                for position in range(3):
                    each[:, position, tokens[row, position]] += ratios[:, row]
            # The state whose logits are these log probabilities: least squares is exact here,
            # since there are as many dimensions as words.
            wanted = (each + 1e-30).log() - each.clamp(min=1e-30).log().mean(dim=-1, keepdim=True)
            return wanted @ torch.linalg.pinv(table).T

    domain = EmbeddedDomain(Listed(WORDS), width=6, length=3, norm=3.0, first_std=0.1, clamp="soft")
    domain.table.data.copy_(plain.domain.table)
    clamped = TextDiffusion(domain, plain.process, Words(domain, JOINT))
    a, b = (float(bound_of(one, repeated, 100)[0].mean()) for one in (plain, clamped))
    assert b == pytest.approx(a, abs=0.1)


def test_terms_are_told_for_each_real_token(small_restaurant):
    model = md.load(small_restaurant)
    texts = ["The Eagle is a pub.", "The Mill is cheap food."]
    found = nats_per_token(model, texts, [{}, {}], steps=5)
    assert found["total"] == pytest.approx(sum(v for k, v in found.items() if k != "total"))
    alone = [text_bound(model, [t], [{}], [i], uniform_timesteps(5)) for i, t in enumerate(texts)]
    words = sum(float(one.pop("words")) for one in alone)
    total = sum(float(v) for one in alone for v in one.values())
    assert found["total"] == pytest.approx(total / words, rel=1e-4)


def test_what_a_text_is_made_from_is_told():
    torch.manual_seed(0)
    domain = EmbeddedDomain(Listed(WORDS), width=6, length=4, source_length=4)
    process = GaussianProcess(BetaSchedule.linear(100), "x0")
    network = TextDenoiser(6, 16, 1, 2, 4, sources=domain.vocabulary.size, source_length=4)
    model = TextDiffusion(domain, process, network).requires_grad_(False)
    texts, nothing = ["red wine", "wine"], [{}, {}]
    uncond = model.nats_per_token(texts, nothing)
    assert uncond == model.nats_per_token(texts, nothing, sources=["", ""])
    assert uncond["steps"] != model.nats_per_token(texts, nothing, sources=["white", ""])["steps"]

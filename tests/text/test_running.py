"""Bits for each character of running text, against values that are known."""

import math

import pytest
import torch
import torch.nn.functional as F
from test_masked_text import Blind
from torch import nn

from multidiff.core.discrete.absorbing import MaskProcess
from multidiff.core.discrete.blocks import BlockMaskProcess
from multidiff.core.discrete.schedules import LogLinearMasks
from multidiff.text.data.listing import TextSource
from multidiff.text.data.subwords import SentencePieceVocabulary
from multidiff.text.data.vocabulary import FIRST, CharacterVocabulary, WordVocabulary
from multidiff.text.masked.model import MaskedText, TokenDomain
from multidiff.text.masked.running_text import measure_running
from multidiff.text.metrics.ngram import NGramModel
from multidiff.utils.errors import InputError

SIZE, LENGTH = 2 + FIRST, 10


def measured(folder, text, logits=None, **options):
    path = folder / "running.txt"
    path.write_text(text)
    source = TextSource(str(path), running=True)
    domain = TokenDomain(CharacterVocabulary(SIZE, source), LENGTH, ends=False)
    blind = Blind(torch.zeros(SIZE) if logits is None else logits)
    model = MaskedText(domain, MaskProcess(SIZE, LogLinearMasks()), blind)
    wanted = {"held_out_ratio": 0.2, "count": 0, "seed": 0, **options}
    return measure_running(model, source, **wanted).facts


def test_a_uniform_predictor_needs_the_logarithm_of_the_vocabulary(tmp_path):
    found = measured(tmp_path, "ab\nba\naab\n" * 40)
    assert found["stretches"] == 8 and found["length"] == LENGTH
    bits = found["bits_per_character"]["model, at most"]
    assert bits["mean"] == pytest.approx(math.log2(SIZE), abs=1e-5) and bits["error"] == 0


def test_a_predictor_that_knows_the_shares_needs_their_cross_entropy(tmp_path):
    """Stretches are all a or all b: their mean is known, and so is its error."""
    logits = torch.full((SIZE,), -math.inf)
    logits[FIRST:] = torch.tensor([0.75, 0.25]).log()
    text = "a" * 160 + "a" * 30 + "b" * 10  # held out: three stretches of a, one of b
    bits = measured(tmp_path, text, logits)["bits_per_character"]["model, at most"]
    assert bits["mean"] == pytest.approx((3 * math.log2(4 / 3) + 2) / 4, abs=1e-5)
    spread = (2 - math.log2(4 / 3)) * math.sqrt(3) / 4
    assert bits["error"] == pytest.approx(spread / math.sqrt(3), abs=1e-5)


def test_the_n_gram_learns_from_what_is_not_held_out_and_gains_by_what_stands_before(tmp_path):
    bits = measured(tmp_path, "ab" * 400)["bits_per_character"]
    alone, after = bits["5-gram"]["mean"], bits["5-gram, given the text before"]["mean"]
    truth = NGramModel(["ab" * 320], 5)
    reported = sum(truth.running_nats("ab" * 5, "abab")) / (10 * math.log(2))
    # One character in ten has nothing before it: it costs one bit.
    assert after == pytest.approx(reported, abs=1e-5) and 0.09 < alone - after < 0.11


PIECES = 9 + FIRST  # four letters and the space; ab, cd, and these behind a space


def measured_pieces(folder, text, logits=None):
    """As :func:`measured`, in pieces that are trained on the text."""
    path = folder / "running.txt"
    path.write_text(text)
    source = TextSource(str(path), running=True)
    vocabulary = SentencePieceVocabulary(PIECES, source, kind="bpe")
    domain = TokenDomain(vocabulary, LENGTH, ends=False)
    blind = Blind(torch.zeros(PIECES) if logits is None else logits(vocabulary))
    model = MaskedText(domain, MaskProcess(PIECES, LogLinearMasks()), blind)
    return vocabulary, measure_running(model, source, 0.2, 0, 0)


def test_bits_of_pieces_are_nats_of_tokens_by_characters(tmp_path):
    """Pieces of three characters: a uniform predictor needs a third of log2 of their number."""
    text = ("ab cd cd ab cd ab ab cd " * 100).strip()
    vocabulary, report = measured_pieces(tmp_path, text)
    assert len(vocabulary.numbers("ab cd cd")) == 3
    found, bits = report.facts, report.facts["bits_per_character"]
    # 480 characters are held out: 160 pieces of three, which are 16 stretches of 10.
    assert found["tokens"] == LENGTH * found["stretches"] == 160
    assert found["characters"] == 3 * found["tokens"]
    for row in ("model, at most", "model, given the text before, at most"):
        assert bits[row]["mean"] == pytest.approx(math.log2(PIECES) / 3, abs=1e-5)
        assert bits[row]["nats_per_token"] == pytest.approx(math.log(PIECES), abs=1e-5)
        assert bits[row]["error"] == 0
    assert "tokens, 3.00 characters each" in report.lines[1]


def test_bits_of_pieces_of_several_lengths_weigh_them_by_characters(tmp_path):
    """The cost of each piece is its own share; what is measured is the sum over all characters."""

    def logits(vocabulary):
        ratios = torch.arange(1.0, PIECES + 1).log()
        ratios[:FIRST] = -math.inf
        return ratios

    text = "abc ab\nabc abc ab ab abc a\nb " * 60
    vocabulary, report = measured_pieces(tmp_path, text, logits)
    costs = -torch.log_softmax(logits(None), 0)
    whole, ends = vocabulary.numbers(text), [0, *vocabulary.token_ends(text)]
    # By hand: the first token behind the cut, and as many stretches as are left of there.
    first = next(i for i in range(len(whole)) if ends[i] >= int(len(text) * 0.8))
    last = first + (len(whole) - first) // LENGTH * LENGTH
    nats = sum(float(costs[number]) for number in whole[first:last])
    characters = ends[last] - ends[first]
    found = report.facts
    assert found["tokens"] == last - first
    assert found["characters"] == characters > found["tokens"]
    mean = found["bits_per_character"]["model, at most"]["mean"]
    # The bound draws which tokens it looks at; all cost the same only where they are alike.
    assert mean == pytest.approx(nats / math.log(2) / characters, abs=5e-3)


@pytest.mark.parametrize("text", ["abc  ab\n", " ab c", "", "abcab ab", "ß abc"])
def test_tokens_end_where_their_text_does(tmp_path, text):
    vocabulary, _ = measured_pieces(tmp_path, "ab cd cd ab cd ab ab cd " * 100)
    path = tmp_path / "running.txt"
    characters = CharacterVocabulary(SIZE, TextSource(str(path), running=True))
    for one in (vocabulary, characters):
        ends = one.token_ends(text)
        assert len(ends) == len(one.numbers(text)) and ends == sorted(ends)
        assert not text or ends[-1] == len(text)


def test_words_end_where_white_space_begins(tmp_path):
    path = tmp_path / "running.txt"
    path.write_text("ab cd")
    words = WordVocabulary(5, TextSource(str(path)))
    text = "Ab (cafe\u0301s,  x) \u0130  z\n"
    ends = words.token_ends(text)
    assert len(ends) == len(words.numbers(text)) and ends == sorted(ends)
    assert {2, 11, 15, 17, 20} <= {*ends} and ends[-1] == 20  # behind each that has no space in it
    assert ends[:2] == [2, 4]


class Alternating(nn.Module):
    """Knows that a and b take turns, and of the first of a stretch nothing."""

    source, size, block = None, SIZE, 1

    def forward(self, xt, level, condition):
        left = condition["x0"][:, :-1]
        sure = 200.0 * F.one_hot(torch.where(left == FIRST, FIRST + 1, FIRST), SIZE)
        return F.pad(sure, (0, 0, 1, 0))


@pytest.mark.parametrize("length", [8, 9])
def test_the_model_is_told_what_stands_before(tmp_path, length):
    path = tmp_path / "running.txt"
    path.write_text("ab" * 100)
    source = TextSource(str(path), running=True)
    domain = TokenDomain(CharacterVocabulary(SIZE, source), length, ends=False)
    model = MaskedText(domain, BlockMaskProcess(SIZE, LogLinearMasks(), 1), Alternating())
    bits = measure_running(model, source, 0.2, 0, 0).facts["bits_per_character"]
    assert bits["model, at most"]["mean"] == pytest.approx(math.log2(SIZE) / length, abs=1e-5)
    assert bits["model, given the text before, at most"]["mean"] == pytest.approx(0, abs=1e-5)


def test_fewer_stretches_are_spread_over_the_text(tmp_path):
    found = measured(tmp_path, "ab\n" * 400, count=3)
    assert found["stretches"] == 3
    one = measured(tmp_path, "ab\n" * 400, count=1)["bits_per_character"]["model, at most"]
    assert set(one) == {"mean", "nats_per_token"}
    with pytest.raises(InputError, match="--bound -1: must be a number of chunks, 0 or more"):
        measured(tmp_path, "ab\n" * 400, count=-1)


# ------------------------------------------------------------------ n-grams of running text


def test_running_text_is_scored_with_as_much_history_as_there_is():
    text = "the cat sat on the mat and the rat sat on the cat"
    model = NGramModel([text], order=4)
    stretch = "the hat"
    by_order = {order: NGramModel([text], order) for order in (1, 2, 3, 4)}
    # At place i an n-gram of order i + 1 sees the whole beginning and nothing else.
    truth = [
        -math.log(
            ratios_of(by_order[min(position, 3) + 1], stretch[max(0, position - 3) : position], one)
        )
        for position, one in enumerate(stretch)
    ]
    assert model.running_nats(stretch) == pytest.approx(truth, rel=1e-12)
    whole = model.running_nats("on " + stretch)
    assert model.running_nats(stretch, before="on ") == pytest.approx(whole[3:], rel=1e-12)
    assert model.running_nats(stretch, before="xon ") == pytest.approx(whole[3:], rel=1e-12)
    assert model.running_nats("") == []


def ratios_of(model, history, token):
    """The share of a token after a history that fills the model's order."""
    assert len(history) == model.order - 1
    found = dict(zip(["end", "unknown", *model.tokens], model.distribution(history), strict=True))
    return found.get(token, found["unknown"])


def test_shares_of_running_text_sum_to_one():
    model = NGramModel(["abacab"], order=3)
    events = [*model.tokens, "never seen"]
    total = sum(math.exp(-model.running_nats(["a", one])[1]) for one in events)
    # The rest is END's, which running text does not have.
    assert total == pytest.approx(1 - model.distribution(["x", "a"])[0], rel=1e-12)

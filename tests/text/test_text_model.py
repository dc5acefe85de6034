"""What all models of texts share: lengths, seeds, batches and candidates."""

from collections import Counter

import pytest
import torch
from test_embedded import Listed

from multidiff.core.discrete.absorbing import MaskProcess
from multidiff.core.discrete.schedules import LogLinearMasks
from multidiff.core.random import uniform
from multidiff.nn.token_denoiser import TokenDenoiser
from multidiff.text.data.attributes import MeaningTable
from multidiff.text.masked.model import TokenDomain
from multidiff.text.model import TextModel
from multidiff.text.request import TextRequest, candidate_seeds
from multidiff.text.sampling_config import MaskedTextSamplingConfig
from multidiff.utils.errors import InputError

TABLE = MeaningTable({"food": ("Italian", "French")})
SIZE, WORDS = Listed().size, Listed().words


class Noted(TextModel):
    """Writes random words, as many as it is asked for, and notes its batches."""

    def __init__(self, **options):
        torch.manual_seed(0)
        domain = TokenDomain(Listed(), 24, **options)
        denoiser = TokenDenoiser(
            SIZE, 16, 1, 2, 24, sources=domain.sources, source_length=max(1, domain.source_length)
        )
        super().__init__(
            domain, MaskProcess(SIZE, LogLinearMasks()), denoiser, MaskedTextSamplingConfig(), 0.0
        )
        self.batches = []

    def generate(self, requests, *, seed=0, batch_size=64, **overrides):
        config = self.sampling.replace(**overrides)
        return self._texts(requests, seed, config.num_candidates, batch_size, self._made)

    def nats_per_token(self, texts, meanings, *, seed=0, sources=()):
        return {}

    def _made(self, requests, lengths, rng):
        self.batches.append(lengths)
        end = int(self.domain.ends)
        draws = [uniform((length - end,), one) for length, one in zip(lengths, rng, strict=True)]
        return [" ".join(WORDS[int(x * len(WORDS))] for x in row) for row in draws]


def lengths_of(texts):
    return [len(text.split()) for text in texts]


def test_lengths_are_those_asked_for_and_else_drawn():
    model = Noted()
    with torch.no_grad():
        model.domain.lengths.fill_(-30.0)
        model.domain.lengths[[4, 20]] = torch.tensor([0.0, 1.0])
    assert lengths_of(model.generate([TextRequest(length=n) for n in (1, 7, 23)])) == [1, 7, 23]
    drawn = Counter(lengths_of(model.generate([TextRequest()] * 400)))
    assert set(drawn) == {3, 19}
    ratio = torch.tensor([0.0, 1.0]).softmax(0)[1]
    assert abs(drawn[19] / 400 - ratio) < 4 * (ratio * (1 - ratio) / 400) ** 0.5
    # Room is left for all that is known.
    assert set(lengths_of(model.generate([TextRequest(known={9: 5})] * 20))) == {19}


def test_conditions_tell_lengths():
    model = Noted(meanings=TABLE)
    with torch.no_grad():
        model.domain.lengths_by_source[TABLE.number["food", "French"], 6] = 40.0
    assert lengths_of(model.generate([TextRequest({"food": "French"})] * 9)) == [5] * 9
    assert len(set(lengths_of(model.generate([TextRequest()] * 9)))) > 1
    model = Noted(source_length=6)
    with torch.no_grad():
        model.domain.lengths_by_source[0, 6 + 3] = 40.0
    requests = [TextRequest(source=" ".join(WORDS[:n])) for n in (1, 4)]
    assert lengths_of(model.generate(requests)) == [1 + 3, 4 + 3]
    assert len(set(lengths_of(model.generate([TextRequest()] * 9)))) > 1


def test_running_text_is_as_long_as_the_model_reads_unless_asked_otherwise():
    model = Noted(ends=False)
    assert lengths_of(model.generate([TextRequest(), TextRequest(length=3)])) == [24, 3]
    assert model.most_words == 24 and Noted().most_words == 23


@pytest.mark.parametrize("length", [0, -1, 24, 10**6])
def test_lengths_that_cannot_be(length):
    with pytest.raises(InputError, match=f"length {length}: this model writes 1 to 23 tokens"):
        Noted().generate([TextRequest(length=length)])


def test_a_text_is_its_seeds_whatever_is_beside_it():
    requests = [TextRequest(), TextRequest(length=3), TextRequest(), TextRequest(length=20)]
    together = Noted().generate(requests, seed=5)
    assert together == Noted().generate(requests[::-1], seed=[8, 7, 6, 5], batch_size=1)[::-1]
    assert [Noted().generate([one], seed=5 + i)[0] for i, one in enumerate(requests)] == together
    assert together != Noted().generate(requests, seed=6)


def test_batches_are_of_one_canvas_and_no_larger_than_asked():
    model = Noted()
    model.generate([TextRequest(length=n) for n in (3, 4, 9, 20, 5, 6)], batch_size=3)
    assert model.batches == [[4, 5, 6], [10], [21], [7]]  # by their earliest text


def test_the_candidate_most_like_the_others_is_taken():
    model = Noted()
    request = TextRequest(length=4)
    pool = model.generate([request] * 4, seed=candidate_seeds(3, 4))
    (chosen,) = model.generate([request], seed=3, num_candidates=4)
    assert chosen in pool
    assert model._best(["the eagle is", "the eagle is a", "nice food", "cheap"]) == "the eagle is"
    assert model.generate([request], seed=3) == pool[:1]
    with pytest.raises(InputError, match="--num-candidates 0: from 1 to 1000"):
        model.generate([request], num_candidates=0)


def test_what_lies_beside_the_weights(tmp_path):
    model = Noted()
    model.load_assets(tmp_path / "folder")
    assert model.name == "folder" and model.assets() == {} and model.metadata() == {"kind": "texts"}
    assert model.task().domain is model.domain

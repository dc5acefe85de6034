"""Text models: what is asked of a text is what it has, and one batch is learned by heart."""

import pytest
import torch
from shapes import unchecked

import multidiff as md
from multidiff.core.gaussian.losses import ConstantWeight, SimpleLoss
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.schedules import BetaSchedule
from multidiff.text.data.attributes import MeaningTable
from multidiff.text.data.vocabulary import BLANK, END, PAD, WordVocabulary, with_blanks
from multidiff.text.diffusion_lm.denoiser import TextDenoiser
from multidiff.text.diffusion_lm.domain import EmbeddedDomain
from multidiff.text.diffusion_lm.model import TextDiffusion
from multidiff.text.request import Control, TextRequest, batches_of, candidate_seeds, laid_out
from multidiff.text.sampling_config import TextSamplingConfig
from multidiff.utils.errors import InputError

SENTENCES = {
    "a": "the eagle is a cheap pub near the river.",
    "b": "come to the mill, it serves italian food.",
    "c": "alimentum is not family friendly at all, and it is in the city centre.",
    "d": "prices are high.",
}


def learned_vocabulary(tmp_path):
    from multidiff.text.data.listing import TextSource

    path = tmp_path / "texts.txt"
    path.write_text("\n".join(SENTENCES.values()))
    return WordVocabulary(33, TextSource(str(path)))


def small_model(vocabulary, clamp="soft", seed=0, **options):
    torch.manual_seed(seed)
    objective = SimpleLoss(weight=ConstantWeight(0.0 if clamp == "soft" else 1.0))
    return TextDiffusion(
        EmbeddedDomain(
            vocabulary, width=16, length=24, norm=4.0, clamp=clamp, anchor=1.0,
            meanings=MeaningTable({"which": tuple(SENTENCES)}),
        ),
        GaussianProcess(BetaSchedule.sqrt(200), "x0", objective=objective),
        TextDenoiser(16, 64, 2, 4, 24, sources=5, source_length=1, embedding_width=32),
        TextSamplingConfig(20),
        **options,
    )  # fmt: skip


def position_of_known(model, text):
    found = with_blanks(model.domain.vocabulary, text)
    return {position: number for position, number in enumerate(found) if number is not None}, len(
        found
    )


@pytest.mark.long
@pytest.mark.parametrize("clamp", ["soft", pytest.param("hard", marks=pytest.mark.long)])
def test_one_batch_is_learned_by_heart_and_said_when_asked(clamp, tmp_path):
    model = small_model(learned_vocabulary(tmp_path), clamp, drop_condition=0.1)
    batch = {
        "text": list(SENTENCES.values()) * 2,
        "meaning": [{"which": name} for name in SENTENCES] * 2,
    }
    trainer = md.Trainer(steps=600, learning_rate=3e-3, ema_decay=0.9, precision="fp32", threads=1)
    with unchecked():
        trainer.fit(model.task(), [batch])
    model.eval()
    lengths = [len(model.domain.vocabulary.numbers(text)) for text in SENTENCES.values()]
    requests = [
        TextRequest({"which": name}, length=length)
        for name, length in zip(SENTENCES, lengths, strict=True)
    ]
    assert model.generate(requests) == list(SENTENCES.values())
    assert model.generate(requests, steps=200, sampler="ddim") == list(SENTENCES.values())
    # Infilling without the meaning: the words around it are enough.
    known, length = position_of_known(model, f"the eagle is a {BLANK} pub near the {BLANK}.")
    (text,) = model.generate([TextRequest(known=known, length=length)])
    assert text == SENTENCES["a"]


def test_sample_i_alone_is_sample_i_in_a_batch(small_restaurant):
    model = md.load(small_restaurant)
    requests = [
        TextRequest(),
        TextRequest({"food": "Italian"}),
        TextRequest(length=3),
        TextRequest(),
    ]
    together = model.generate(requests, seed=[5, 6, 7, 8])
    assert together == model.generate(requests[::-1], seed=[8, 7, 6, 5], batch_size=2)[::-1]
    for row, request in enumerate(requests):
        assert model.generate([request], seed=[5 + row]) == [together[row]]
    assert model.generate([TextRequest()] * 4) != model.generate([TextRequest()] * 4, seed=100)


@pytest.mark.parametrize("length", [1, 7, 8, 15, 31])
def test_lengths_are_exact(small_restaurant, length):
    model = md.load(small_restaurant)
    for text in model.generate([TextRequest(length=length)] * 3):
        assert len(model.domain.vocabulary.numbers(text)) == length


def test_known_tokens_are_kept_and_blanks_are_words(small_restaurant):
    model = md.load(small_restaurant)
    vocabulary = model.domain.vocabulary
    known, length = position_of_known(model, f"The {BLANK} serves {BLANK} {BLANK} food.")
    for sampler in ("ddpm", "ddim", "dpm++"):
        for text in model.generate([TextRequest(known=known, length=length)] * 5, sampler=sampler):
            numbers = vocabulary.numbers(text)
            assert len(numbers) == length
            assert {position: numbers[position] for position in known} == known
            assert min(numbers) > END


def test_no_updates_of_control_change_nothing(small_restaurant, small_control):
    model, classifier = md.load(small_restaurant), md.load(small_control)
    requests = [TextRequest()] * 6
    free = model.generate(requests)
    still = Control(classifier, {"food": "Italian"}, updates=0)
    assert model.generate(requests, control=still) == free
    assert model.generate(requests, control=Control(classifier, {})) == free
    moved = Control(classifier, {"food": "Italian"}, updates=3, rate=50.0)
    assert model.generate(requests, control=moved) != free


def test_control_does_not_depend_on_the_batch(small_restaurant, small_control):
    model = md.load(small_restaurant)
    control = Control(md.load(small_control), {"area": "riverside"}, rate=20.0)
    requests = [TextRequest(), TextRequest(length=9), TextRequest()]
    together = model.generate(requests, control=control)
    for row, request in enumerate(requests):
        assert model.generate([request], control=control, seed=row) == [together[row]]


def test_a_classifier_of_other_embeddings_is_refused(small_restaurant, small_control, tmp_path):
    model, classifier = md.load(small_restaurant), md.load(small_control)
    with torch.no_grad():
        classifier.domain.table += 1
    with pytest.raises(InputError, match="embeddings of another model"):
        model.generate([TextRequest()], control=Control(classifier, {"area": "riverside"}))


def test_guidance_changes_texts_that_are_told_something(small_restaurant):
    model = md.load(small_restaurant)
    reported, free = [TextRequest({"food": "Italian"})] * 6, [TextRequest()] * 6
    assert model.generate(reported, guidance_scale=6.0) != model.generate(reported)
    assert model.generate(free, guidance_scale=6.0) == model.generate(free)


def test_of_several_candidates_the_first_seed_is_the_texts_own(small_restaurant):
    model = md.load(small_restaurant)
    assert candidate_seeds(7, 3)[0] == 7 and len(set(candidate_seeds(7, 30))) == 30
    pool = model.generate([TextRequest()] * 5, seed=candidate_seeds(3, 5))
    (chosen,) = model.generate([TextRequest()], seed=3, num_candidates=5)
    assert chosen in pool
    assert model.generate([TextRequest()], seed=3, num_candidates=1) == pool[:1]


def test_a_wrong_order_is_told(small_restaurant):
    model = md.load(small_restaurant)
    for length in (0, -1, 32):
        with pytest.raises(InputError, match=f"length {length}: this model writes 1 to 31"):
            model.generate([TextRequest(length=length)])
    with pytest.raises(InputError, match="temperature 0"):
        model.generate([TextRequest()], temperature=0)
    with pytest.raises(InputError, match="--num-candidates 0"):
        model.generate([TextRequest()], num_candidates=0)
    with pytest.raises(InputError, match="--sampler eulr: did you mean euler"):
        model.generate([TextRequest()], sampler="eulr")
    with pytest.raises(InputError, match="--steps 0: from 1 to 10000"):
        model.generate([TextRequest()], steps=0)


def test_parts_that_do_not_fit_each_other(tmp_path):
    vocabulary = learned_vocabulary(tmp_path)
    domain = EmbeddedDomain(vocabulary, width=16, length=24)
    process = GaussianProcess(BetaSchedule.sqrt(200), "x0")
    with pytest.raises(ValueError, match="state_width 8 is not the domain's width, 16"):
        TextDiffusion(domain, process, TextDenoiser(8, 16, 1, 2))
    with pytest.raises(ValueError, match="set sources: 0"):
        TextDiffusion(domain, process, TextDenoiser(16, 16, 1, 2, sources=5))


def test_canvases_hold_texts_of_like_lengths():
    lengths = [3, 8, 9, 16, 17, 5]
    assert batches_of(lengths, 2) == [[0, 1], [2, 3], [4], [5]]
    tokens, known = laid_out([TextRequest(known={1: 9}), TextRequest()], [4, 2], 8)
    assert tokens.tolist() == [[PAD, 9, PAD, END] + [PAD] * 4, [PAD, END] + [PAD] * 6]
    assert known.sum(dim=1).tolist() == [2, 1]


PAIRS = ((20, 1.05), (50, 1.15), (200, 1.25))


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ({"steps": 50}, 1.15),
        ({"steps": 100}, 1.2),  # half of the way from 50 to 200 in the logarithm
        ({"steps": 2}, 1.05),
        ({"steps": 1000}, 1.25),
        ({"steps": 50, "temperature": 0.7}, 0.7),
    ],
)
def test_the_temperature_follows_the_number_of_steps(how, wanted):
    config = TextSamplingConfig(temperature_by_steps=PAIRS).replace(**how)
    assert config.word_temperature() == pytest.approx(wanted)
    assert TextSamplingConfig(steps=50).word_temperature() == 1


@pytest.mark.parametrize("pairs", [((50, 1.0), (20, 1.1)), ((20, 0.0),), ((0, 1.0),)])
def test_wrong_temperatures_by_steps_are_refused(pairs):
    with pytest.raises(ValueError, match="temperature_by_steps"):
        TextSamplingConfig(temperature_by_steps=pairs)


@pytest.mark.parametrize("wrong", ["hot", True])
def test_a_temperature_is_a_number(wrong):
    with pytest.raises(InputError, match=f"--temperature {wrong!r}: a number"):
        TextSamplingConfig().replace(temperature=wrong)


def test_a_recipes_temperatures_by_steps_reach_the_samples(small_restaurant):
    model = md.load(small_restaurant)
    requests = [TextRequest(length=8)] * 4
    hot = TextSamplingConfig(steps=6, temperature_by_steps=((3, 1.0), (6, 5.0)))
    made = model.generate(requests, config=hot)
    assert made == model.generate(requests, steps=6, temperature=5.0)
    assert made != model.generate(requests, steps=6, temperature=1.0)

"""The acoustic model: durations, frames, batches, temperature, and what may not depend on what."""

from dataclasses import replace
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
import torch
from program import RECIPES

from multidiff.audio.tts import speech
from multidiff.audio.tts.front_end import Sentence
from multidiff.audio.tts.model import AcousticModel, FitMelStatistics
from multidiff.audio.tts.phone_encoder import frames_of
from multidiff.audio.tts.phones import Phone, parse_phones, write_phones
from multidiff.audio.tts.previews import ROW_HEIGHT, alignment_image, preview
from multidiff.audio.tts.sampling_config import SpeechSamplingConfig
from multidiff.audio.tts.transcripts import TranscribedSource
from multidiff.audio.tts.utterances import Utterances
from multidiff.core.draws import DrawsFrom
from multidiff.core.random import generators
from multidiff.data.batches import Batches
from multidiff.models.loading import build_model
from multidiff.training.trainer import Trainer
from multidiff.utils.errors import InputError

SHORT = "^ #h ə #l ˈoʊ ."
LONG = "^ #ð ə #k w ˈɪ k #b ɹ ˈaʊ n #f ˈɑ k s , #ˈoʊ v ɚ #d ˈɔ ɡ ."


@pytest.fixture(scope="module")
def model() -> AcousticModel:
    """A small model whose outputs are far from constant."""
    with DrawsFrom(torch.Generator().manual_seed(0)):
        made = build_model(RECIPES / "smoke" / "tts.yaml").eval()
        with torch.no_grad():
            torch.nn.init.normal_(made.denoiser.write.weight, std=0.2)
            torch.nn.init.normal_(made.text.duration.weight, std=0.1)
    return made


@pytest.fixture(scope="module")
def utterances() -> Utterances:
    return Utterances([TranscribedSource("starter:speech", speaker="lj")], crop_frames=64)


# ------------------------------------------------------------------------------- phones


def test_phones_and_their_line_are_one():
    phones = parse_phones(LONG)
    assert write_phones(phones) == LONG
    assert phones[1] == Phone("ð", 0, True) and phones[5] == Phone("ɪ", 1)
    assert len({Phone("a", s, w).mark for s in range(3) for w in (False, True)}) == 6
    with pytest.raises(InputError, match="mark without a phone"):
        parse_phones("^ #ˈ .")


def test_an_unknown_phone_or_speaker_is_a_fault_and_no_other_phone(model):
    with pytest.raises(InputError, match=r"phone 'ʀ'.* ɑ æ"):
        model.text.read(["^ #ʀ ."], ["lj"])
    with pytest.raises(InputError, match="speaker 'joe': the model has lj"):
        model.mels([SHORT], "joe")


# --------------------------------------------------------------------- durations, frames


def test_speed_divides_before_rounding_and_rounding_loses_no_time():
    logs = np.log(np.random.default_rng(0).gamma(3, 2.5, 400) + 0.3)
    exact = np.exp(logs).sum()
    normal = SpeechSamplingConfig().frames(logs)
    assert normal.min() >= 1 and 0.97 < normal.sum() / exact < 1.03
    fast = SpeechSamplingConfig(speed=2.0).frames(np.log(np.full(40, 7.0)))
    assert fast.sum() == 140  # ceil(7) / 2 would be 160
    slow = SpeechSamplingConfig(duration_scale=1.5).frames(np.log(np.full(40, 7.0)))
    assert slow.sum() == 420


def test_frames_tell_where_in_their_phone_they_lie():
    found = frames_of(np.array([2, 1, 40]))
    assert found.phone.tolist() == [0, 0, 1] + [2] * 40
    assert found.features[:3].tolist() == [
        [0.25, 0.75, 0.0, np.float32(0.1)],
        [0.75, 0.25, np.float32(0.1), 0.0],
        [0.5, 0.5, 0.0, 0.0],
    ]
    assert found.features[:, 2:].max() == 2.0  # beyond twenty frames all are alike


@pytest.mark.parametrize("length", [7, 8])
def test_odd_and_even_lengths_come_out_whole(model, length):
    durations = np.array([1, 1, 1, 1, 1, length - 5])
    (made,) = model.mels([SHORT], durations=[durations])
    assert made.mel.shape == (80, length)


# ------------------------------------------------------------------------------- sampling


def test_a_sentence_does_not_depend_on_its_batch(model):
    durations = [np.array([2, 1, 3, 2, 4, 3]), np.full(len(parse_phones(LONG)), 3)]
    alone = [
        model.mels([line], seed=seed, durations=[own], temperature=1.0)[0].mel
        for line, seed, own in zip((SHORT, LONG), (5, 6), durations, strict=True)
    ]
    both = model.mels([SHORT, LONG], seed=[5, 6], durations=durations, temperature=1.0)
    for one, other in zip(alone, both, strict=True):
        assert torch.allclose(one, other.mel, atol=1e-5)
    assert both[0].mel.std() > 0.1


def test_predicted_durations_do_not_depend_on_the_batch(model):
    both = model.mels([SHORT, LONG], steps=0)
    (alone,) = model.mels([SHORT], steps=0)
    assert both[0].durations.tolist() == alone.durations.tolist()
    assert torch.allclose(both[0].mel, alone.mel, atol=1e-5)


def test_the_temperature_multiplies_the_first_noise(model):
    seen = []
    hook = model.denoiser.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    durations = [np.full(6, 200)]
    try:
        for temperature in (0.3, 1.0):
            model.mels([SHORT], durations=durations, temperature=temperature, steps=2)
    finally:
        hook.remove()
    assert float(seen[0].std()) == pytest.approx(0.3, abs=0.01)
    assert float(seen[2].std()) == pytest.approx(1.0, abs=0.03)
    assert torch.allclose(seen[0] / 0.3, seen[2], atol=1e-5)


def test_the_same_seed_makes_the_same_bytes_and_another_does_not(model):
    first, second, other = (
        model.mels([LONG], seed=seed, temperature=1.0)[0].mel for seed in (1, 1, 2)
    )
    assert first.numpy().tobytes() == second.numpy().tobytes() != other.numpy().tobytes()


def test_without_steps_the_mean_mel_comes_out(model):
    (made,) = model.mels([SHORT], steps=0)
    (hot,) = model.mels([SHORT], steps=0, temperature=2.0, seed=9)
    assert torch.equal(made.mel, hot.mel)


@pytest.mark.parametrize(
    "wrong", [{"speed": 0.0}, {"speed": 9.0}, {"temperature": -1.0}, {"steps": -1}]
)
def test_sampling_options_out_of_range_are_refused(model, wrong):
    with pytest.raises(InputError, match=f"--{next(iter(wrong))} "):
        model.mels([SHORT], **wrong)


# ------------------------------------------------------------------------------- training


def test_durations_fit_mels_and_phones(utterances):
    for one in utterances.utterances:
        assert len(one.durations) == len(parse_phones(one.phones))
        assert int(one.durations.sum()) == len(one.mel) and one.durations.min() >= 1
    with pytest.raises(ValueError, match="durations"):
        replace(one, durations=one.durations[:-1])


def test_standardised_mels_have_mean_0_and_deviation_1(model, utterances):
    FitMelStatistics()(model, Batches(utterances, 2))
    frames = torch.from_numpy(np.concatenate([one.mel for one in utterances.utterances]))
    state = model.domain.standardized(frames)
    assert float(state.mean(dim=0).abs().max()) < 0.05
    assert float((state.std(dim=0) - 1).abs().max()) < 0.05
    assert torch.equal(model.state_dict()["domain.mean"], model.domain.mean)
    assert torch.allclose(model.domain.decode(state), frames, atol=1e-4)
    assert model.assets()["front_end.json"].startswith('{"front_end": "gruut')


def test_the_mean_of_a_crop_is_the_crop_of_the_mean(model, utterances):
    """Away from its edges: what is cropped is frames, and their phones come with them."""
    one = utterances.utterances[0]
    task, text = model.task(), model.text
    size = len(one.mel) - len(one.mel) % 2
    hidden = text.hidden(text.read([one.phones], ["lj"]))

    def mean(first, count):
        batch = {"durations": [one.durations], "first": [first]}
        index, features = task._cropped(batch, torch.zeros(1, count, 80))
        return text.frames(hidden, index, features, torch.ones(1, count))[1][0]

    whole, crop = mean(0, size), mean(60, 64)
    assert torch.allclose(whole[60 + 8 : 60 + 56], crop[8:56], atol=1e-5)
    assert not torch.allclose(whole[60:64], crop[:4], atol=1e-3)


def test_padding_counts_in_no_loss(model, utterances):
    """A short utterance in a crop of twice its length has the loss that it has in its own."""
    task = model.task().eval()
    one = utterances.utterances[0]
    size = len(one.mel) - len(one.mel) % 2
    losses = []
    for padding in (0, 40):
        mel = torch.zeros(1, size + padding, 80)
        mask = torch.zeros(1, size + padding)
        mel[0, :size], mask[0, :size] = torch.from_numpy(one.mel[:size]), 1
        batch = {"mel": mel, "mask": mask, "first": [0], "phones": [one.phones],
                 "speaker": ["lj"], "durations": [one.durations]}  # fmt: skip
        with torch.no_grad():
            losses.append(task.losses(batch, generators([3])))
    assert float(losses[0]["mean"]) == pytest.approx(float(losses[1]["mean"]), rel=1e-5)
    assert float(losses[0]["duration"]) == pytest.approx(float(losses[1]["duration"]), rel=1e-5)


def test_it_learns_one_batch(utterances):
    with DrawsFrom(torch.Generator().manual_seed(1)):
        model = build_model(RECIPES / "smoke" / "tts.yaml")
    batches = Batches(utterances, 2)
    FitMelStatistics()(model, batches)
    batch = batches.batch(0)
    trainer = Trainer(steps=30, learning_rate=1e-2, ema_decay=0.5, log_every=30)
    with torch.no_grad():
        found = model.task().losses(batch, generators([0, 1]))
    before = {name: float(value.mean()) for name, value in found.items()}
    outcome = trainer.fit(model.task(), [batch])
    assert outcome.losses["mean"] < 0.8 * before["mean"]
    assert outcome.losses["duration"] < 0.8 * before["duration"]
    assert outcome.losses["denoising"] < 0.95 * before["denoising"]


def test_a_frozen_text_side_stays_as_it_is(utterances):
    model = build_model(RECIPES / "smoke" / "tts.yaml")
    model.freezes_text = True
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = Trainer(steps=2, log_every=2, weight_decay=0.1)
    outcome = trainer.fit(model.task(), Batches(utterances, 2))
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert changed and all(name.startswith("denoiser.") for name in changed)
    assert "duration" not in outcome.losses


# ------------------------------------------------------------------------- long sentences


def test_long_sentences_are_cut_at_pauses_and_lose_no_phone():
    words = [[Phone(symbol, 0, True), Phone("ə")] for symbol in "ptkbdɡ" * 10]
    pauses = ["," if number % 7 == 6 else "" for number in range(len(words))]
    pauses[-1] = "."
    phones = [Phone("^")]
    for word, pause in zip(words, pauses, strict=True):
        phones += [*word, Phone(pause)] if pause else word
    text = " ".join(f"w{number}" for number in range(len(words)))
    sentence = Sentence(text, tuple(phones))
    pieces = speech.shortened(sentence, 40)
    assert " ".join(one.text for one in pieces) == text
    assert all(len(one.phones) <= 41 and one.phones[0].symbol == "^" for one in pieces)
    assert all(one.phones[-1].is_pause for one in pieces)
    assert sum((one.phones[1:] for one in pieces), ()) == sentence.phones[1:]
    for one, following in pairwise(pieces):
        assert len(one.phones) + len(following.phones) > 40
    assert speech.shortened(sentence, 500) == [sentence]
    without = Sentence(text, tuple(p for p in phones if p.symbol != ","))
    assert len(speech.shortened(without, 40)) > 3


# ------------------------------------------------------------------------------- previews


def test_an_alignment_is_a_staircase_from_below():
    image = alignment_image(np.array([2, 1, 3]))[0, ::ROW_HEIGHT]
    assert image.tolist() == [[0, 0, 0, 1, 1, 1], [0, 0, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]]


def test_previews_show_the_sentence_and_its_alignments(model, utterances, small_vocoder):
    class Writer:
        seen: ClassVar[dict] = {}

        def add_audio(self, tag, wave, step, rate):
            self.seen["sound"] = wave.shape[1]

        def add_image(self, tag, image, step):
            assert float(image.min()) >= 0 and float(image.max()) <= 1
            self.seen[tag] = image.shape[2]

    model.vocoder = str(small_vocoder)
    batch = Batches(utterances, 2).batch(0)
    preview(model, {key: value[:1] for key, value in batch.items()})(Writer(), 3)
    frames = int(batch["durations"][0].sum())
    assert Writer.seen["0/with recorded durations"] == Writer.seen["0/alignment recorded"] == frames
    assert Writer.seen["sound"] == 256 * Writer.seen["0/made"]

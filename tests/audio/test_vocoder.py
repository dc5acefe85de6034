"""The vocoder: plans, seeds, chunks, searches, and what it learns from a wrong mel."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sounds import RATE, STARTER, speech

from multidiff.audio.cli import outputs_for
from multidiff.audio.data.band import band_limited
from multidiff.audio.data.mel_files import MelArray, read_mel
from multidiff.audio.mel import PRESETS
from multidiff.audio.metrics.evaluation import Clip, evaluate
from multidiff.audio.metrics.spectral import spectral_distance
from multidiff.audio.synthesis import (
    SoundMel,
    find_inputs,
    opened,
    synthesize_file,
    trimmed,
)
from multidiff.audio.vocoder.domains import SpectralDomain, WaveformDomain
from multidiff.audio.vocoder.inference_schedule import (
    InferenceSchedule,
    VocoderSamplingConfig,
    read_plans,
    write_plans,
)
from multidiff.audio.vocoder.mdct_denoiser import MDCTDenoiser
from multidiff.audio.vocoder.model import Vocoder
from multidiff.audio.vocoder.search import distance_on, moves, search
from multidiff.audio.vocoder.streaming import faded_in
from multidiff.audio.vocoder.wavegrad import WaveGrad
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.rollout import RolloutTask
from multidiff.core.gaussian.schedules import BetaSchedule, LogSNRSchedule
from multidiff.models.sampling_config import sampler_named
from multidiff.utils.errors import InputError

HIFIGAN = PRESETS["hifigan-22k"]


def vocoder():
    """Small, with weights that do something."""
    torch.manual_seed(0)
    denoiser = MDCTDenoiser(width=16, depth=2)
    torch.nn.init.normal_(denoiser.write.weight, std=0.05)
    process = GaussianProcess(LogSNRSchedule(9, -7), "v")
    sampling = VocoderSamplingConfig(3, projections=1, final_projections=2)
    return Vocoder(SpectralDomain(), process, denoiser, sampling).eval()


def wavegrad():
    torch.manual_seed(0)
    process = GaussianProcess(BetaSchedule.linear(1000, 1e-6, 0.01), "epsilon")
    denoiser = WaveGrad("wavegrad-paper-24k", first_channels=96)
    return Vocoder(
        WaveformDomain("wavegrad-paper-24k"), process, denoiser,
        VocoderSamplingConfig(2, "ddpm", -5, 13),
    ).eval()  # fmt: skip


def a_mel(seconds=1.0, preset=HIFIGAN):
    wave = speech("LJ80-07", seconds)
    return preset.mel(wave[:, : wave.shape[1] // preset.hop_length * preset.hop_length])


# ------------------------------------------------------------------------------ plans


def test_even_plans_take_exactly_the_steps_asked():
    plan = VocoderSamplingConfig(8, projections=2, final_projections=5).plan()
    assert plan.num_steps == 8 and plan.projections == (2,) * 8
    assert plan.log_snrs[0] == -6 and plan.log_snrs[-1] == 8
    calls = []
    model = vocoder()
    inner = model.denoiser.forward
    model.denoiser.forward = lambda *a: calls.append(1) or inner(*a)
    model.synthesize(a_mel(0.2), plan=plan)
    assert len(calls) == 8


@pytest.mark.parametrize("steps", [0, -3, 10_000_000])
def test_impossible_step_counts(steps):
    with pytest.raises(InputError, match="from 1 to 10000"):
        vocoder().plan(steps=steps)


def test_plans_that_make_no_sense():
    with pytest.raises(ValueError, match="one each"):
        InferenceSchedule((0.0, 1.0), (1,))
    with pytest.raises(ValueError, match="must increase"):
        InferenceSchedule((1.0, 1.0), (0, 0))


def test_projections_belong_to_their_level():
    plan = InferenceSchedule((-4.0, 0.0, 5.0), (7, 0, 2))
    at = LogSNRSchedule(9, -7)
    wanted = torch.tensor([-4.0, -1.9, 0.2, 8.0])
    found = [plan.projections_at(at.at(at.time_at(w[None]))) for w in wanted]
    assert found == [7, 0, 0, 2]


def test_searched_plans_lie_beside_the_weights(tmp_path):
    plans = {
        4: InferenceSchedule((-3.0, 0.5, 2.0, 6.0), (3, 1, 0, 0), 8),
        2: InferenceSchedule((0.0, 1.0), (0, 0)),
    }
    write_plans(tmp_path, plans)
    found = read_plans(tmp_path)
    assert found[4].log_snrs == [-3.0, 0.5, 2.0, 6.0] and found[4].final_projections == 8
    model = vocoder()
    model.load_assets(tmp_path)
    assert model.plan(steps=4) == found[4] and model.plan(steps=5).num_steps == 5
    assert model.plan(steps=4, sampler="ddpm") == found[4]
    for name, value in {"log_snr_max": 7.0, "projections": 1, "final_projections": 3}.items():
        assert model.plan(steps=4, **{name: value}) == (
            model.sampling.replace(steps=4, **{name: value}).plan()
        )
    assert read_plans(tmp_path / "elsewhere") == {}
    (tmp_path / "plans.json").write_text('{"4": {"levels": 3}}')
    with pytest.raises(InputError, match="not a file of inference schedules"):
        read_plans(tmp_path)


# --------------------------------------------------------------------------- synthesis


@pytest.mark.parametrize("make", [vocoder, wavegrad])
def test_length_and_seeds(make):
    model = make()
    mel = a_mel(0.3, model.preset)
    wave = model.synthesize(mel, seed=3)
    assert wave.shape == (1, model.preset.num_samples(mel.shape[2]))
    assert torch.equal(wave, model.synthesize(mel, seed=3))
    assert not torch.allclose(wave, model.synthesize(mel, seed=4))


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_a_sound_does_not_depend_on_its_batch(sampler):
    model, mel = vocoder(), a_mel(0.3)
    both = model.synthesize(torch.cat([mel, mel]), sampler=sampler, seed=5)
    for row in range(2):
        alone = model.synthesize(mel, sampler=sampler, seed=5 + row)[0]
        torch.testing.assert_close(both[row], alone, rtol=0, atol=1e-4)


def test_projection_brings_the_sound_nearer_to_its_mel():
    model, mel = vocoder(), a_mel()
    levels = tuple(np.linspace(-6, 8, 4))

    def distance(projections, final_projections):
        plan = InferenceSchedule(levels, (projections,) * 4, final_projections)
        made = model.synthesize(mel, plan=plan)
        return float((HIFIGAN.mel(made) - mel).abs().mean())

    assert distance(0, 8) < distance(0, 0) / 2
    assert distance(2, 0) < distance(0, 0)


def test_chunks_of_a_long_sound_have_no_seams():
    """Chunk by chunk it is what it would have been at once, to a small error at the seams."""
    model = vocoder()
    wave = torch.cat([speech("LJ80-07"), speech("LJ80-47")], dim=1)
    wave = wave[:, : wave.shape[1] // 256 * 256]
    source = MelArray(HIFIGAN.mel(wave)[0].numpy(), "whole")
    plan = InferenceSchedule((-6.0, -2.0, 2.0, 8.0), (2,) * 4, 8)
    whole = model.synthesize(source.frames(0, source.num_frames), plan=plan)[0]
    pieces = list(model.stream(source, plan=plan, chunk_frames=200))
    assert len(pieces) == math.ceil(source.num_frames / 200)
    chunked = torch.cat(pieces)
    assert chunked.shape == whole.shape
    error = (chunked - whole).square()
    level = whole.square().mean()
    seams = torch.cat([error[n * 51200 - 512 : n * 51200 + 512] for n in range(1, len(pieces))])
    assert float(10 * (seams.mean() / level).log10()) < -35  # dB below the sound
    assert float(10 * (error.mean() / level).log10()) < -40


def test_without_context_or_common_noise_there_would_be_seams(monkeypatch):
    """The test above can fail: pieces made on their own differ by as much as the sound."""
    model = vocoder()
    mel = a_mel(2.0)
    whole = model.synthesize(mel)[0]
    apart = model.synthesize(mel[..., 80:], first_frame=0)[0]
    together = model.synthesize(mel[..., 80:], first_frame=80)[0]
    inner = slice(256 * 30, -256 * 30)
    far = (apart - whole[256 * 80 :])[inner].square().mean()
    near = (together - whole[256 * 80 :])[inner].square().mean()
    assert float(near) < 1e-3 * float(far)


def test_fades():
    tail, piece = torch.zeros(3), torch.ones(5)
    assert faded_in(tail, piece).tolist() == [0.25, 0.5, 0.75, 1, 1]
    assert faded_in(torch.zeros(9), torch.ones(2)).tolist() == pytest.approx([1 / 3, 2 / 3])
    assert torch.equal(faded_in(torch.zeros(0), piece), piece)


def test_piecewise_mels_are_those_of_the_whole(tmp_path):
    import tempfile

    from multidiff.audio.data.sound import SoundFile

    for name in ("hifigan-22k", "wavegrad-paper-24k", "lmnt-diffwave"):
        preset = PRESETS[name]
        sound = SoundFile(STARTER / "LJ80-47.flac")
        with tempfile.NamedTemporaryFile() as spool:
            mel = SoundMel(sound, preset, spool)
            wave = sound.read(preset.sample_rate_hz)
            padded = torch.nn.functional.pad(wave, (0, -len(wave) % preset.hop_length))
            whole = preset.mel(padded[None])
            assert mel.num_frames == whole.shape[2] and mel.num_samples == len(wave)
            for first, last in ((0, 30), (100, 171), (mel.num_frames - 9, mel.num_frames)):
                piece = mel.frames(first, last)
                torch.testing.assert_close(piece, whole[..., first:last], rtol=0, atol=1e-3)


def test_mismatched_parts_are_refused():
    process = GaussianProcess(LogSNRSchedule(9, -7), "v")
    with pytest.raises(ValueError, match="set both to the same mel"):
        Vocoder(SpectralDomain("hifigan-22k"), process, MDCTDenoiser("lmnt-diffwave"))
    with pytest.raises(InputError, match="did you mean euler"):
        sampler_named("eulr")


def test_facts_of_the_model():
    facts = vocoder().metadata()
    assert json.loads(facts.pop("mel_preset")) == HIFIGAN.description()
    assert facts == {
        "mel": "hifigan-22k",
        "sample_rate_hz": "22050",
        "level_range": "-11.5129 3.2253",
        "embedding_scale": "none",
    }
    assert wavegrad().metadata()["embedding_scale"] == "5000.0"


# ------------------------------------------------------------------------------- files


@pytest.mark.parametrize("rate", [22050, 16000])
def test_a_recording_comes_back_as_long_as_it_was(tmp_path, rate):
    import soundfile

    samples = speech(seconds=1)[0, :20_001].numpy()
    soundfile.write(tmp_path / "in.wav", samples, rate)
    done = synthesize_file(vocoder(), tmp_path / "in.wav", tmp_path / "out.flac", seed=1)
    info = soundfile.info(tmp_path / "out.flac")
    assert info.samplerate == RATE
    assert abs(info.frames - 20_001 * RATE / rate) <= 1
    assert done.seconds == pytest.approx(info.frames / RATE)
    assert done.real_time_factor > 0 and done.threads == torch.get_num_threads()


@pytest.mark.parametrize("ending", ["npy", "npz", "safetensors"])
def test_mels_from_files(tmp_path, ending):
    mel = a_mel(0.5)[0]
    path = tmp_path / f"a.{ending}"
    if ending == "npy":
        np.save(path, mel.numpy())
    elif ending == "npz":
        np.savez(path, mel=mel.numpy(), sample_rate_hz=22050, preset="hifigan-22k")
    else:
        save_file({"mel": mel[None].contiguous()}, path)
    found = read_mel(path, HIFIGAN)
    torch.testing.assert_close(found.frames(0, found.num_frames)[0], mel)
    with opened(path, HIFIGAN) as (source, num_samples):
        assert num_samples == source.num_frames * 256


SPEECH = {name: preset.mel(speech(seconds=2)[:, :36000])[0] for name, preset in PRESETS.items()}
WRONG_MELS = {
    "transposed": (SPEECH["hifigan-22k"].T, "transpose it"),
    "bins": (SPEECH["bigvgan-24k-100"], "100 bands.* looks like bigvgan-24k-100"),
    "vocos": (SPEECH["vocos-24k"], "looks like vocos-24k"),
    "lmnt": (SPEECH["lmnt-diffwave"], "looks like lmnt-diffwave"),
    "decimal": (SPEECH["hifigan-22k"] / math.log(10), "decimal logarithms"),
    "linear": (SPEECH["hifigan-22k"].exp() * 100, "without a logarithm"),
    "decibels": (SPEECH["hifigan-22k"] * 20 / math.log(10), "decibels"),
    "normalised": ((SPEECH["hifigan-22k"] + 5.536622) / 2.116101, "normalised"),
    "nan": (torch.where(SPEECH["hifigan-22k"] > 0, torch.nan, SPEECH["hifigan-22k"]), "NaN"),
    "integers": (SPEECH["hifigan-22k"].int(), "holds int32"),
    "one number": (torch.tensor(3.0), "has shape"),
    "no frames": (torch.zeros(80, 0), "has shape"),
}


@pytest.mark.parametrize("kind", WRONG_MELS)
def test_a_wrong_mel_is_told_what_it_looks_like(tmp_path, kind):
    array, reason = WRONG_MELS[kind]
    np.save(tmp_path / "wrong.npy", array.numpy())
    with pytest.raises(InputError, match=reason) as reported:
        read_mel(tmp_path / "wrong.npy", HIFIGAN)
    assert str(tmp_path / "wrong.npy") in str(reported.value) and "\n" not in str(reported.value)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_no_preset_refuses_its_own_speech(tmp_path, name):
    np.save(tmp_path / "right.npy", SPEECH[name].numpy())
    assert read_mel(tmp_path / "right.npy", PRESETS[name]).num_frames == SPEECH[name].shape[1]


def test_files_that_are_no_mels(tmp_path):
    mel = SPEECH["hifigan-22k"].numpy()
    cases = {
        "rate.npz": (lambda p: np.savez(p, mel=mel, sample_rate_hz=24000), "sample_rate_hz 24000"),
        "preset.npz": (lambda p: np.savez(p, mel=mel, preset="vocos-24k"), "preset vocos-24k"),
        "two.npz": (lambda p: np.savez(p, a=mel, b=mel), "name the mel 'mel'"),
        "pickle.npy": (lambda p: np.save(p, np.array([{}]), allow_pickle=True), "array file"),
        "text.npy": (lambda p: p.write_text("mel"), "array file"),
        "cut.safetensors": (lambda p: p.write_bytes(b"\0" * 40), "not a whole safetensors"),
    }
    for name, (make, reason) in cases.items():
        make(tmp_path / name)
        with pytest.raises(InputError, match=reason):
            read_mel(tmp_path / name, HIFIGAN)


def test_inputs_and_outputs(tmp_path):
    for name in ("a.wav", "sub/b.flac", "c.npy", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_inputs([tmp_path])
    assert [p.name for p in found] == ["a.wav", "c.npy", "b.flac"]
    with pytest.raises(InputError, match="no such file or folder"):
        find_inputs([tmp_path / "d.wav"])
    one, out = tmp_path / "a.wav", tmp_path / "out"
    assert outputs_for([one], out / "x.flac", [one]) == [(one, out / "x.flac")]
    assert outputs_for([one], out, [one]) == [(one, out / "a.wav")]
    with pytest.raises(InputError, match="do not fit into one file"):
        outputs_for(found, tmp_path / "x.wav", [tmp_path])
    with pytest.raises(InputError, match="as would"):
        outputs_for([one, tmp_path / "sub" / "a.flac"], out, [tmp_path])


def test_chunks_are_cut_to_the_length_asked():
    chunks = [torch.arange(4.0), torch.arange(4.0), torch.arange(4.0)]
    assert np.concatenate(list(trimmed(iter(chunks), 6))).tolist() == [0, 1, 2, 3, 0, 1]


# ------------------------------------------------------------------------------ search


def test_search_finds_the_bottom_of_a_bowl():
    best = InferenceSchedule((-3.0, 1.0, 4.0), (4, 0, 1), 3)

    def objective(plan):
        levels = sum((a - b) ** 2 for a, b in zip(plan.log_snrs, best.log_snrs, strict=True))
        given = sum((a - b) ** 2 for a, b in zip(plan.projections, best.projections, strict=True))
        return levels + given + (plan.final_projections - best.final_projections) ** 2

    start = InferenceSchedule((-6.0, 0.0, 7.0), (2, 2, 2), 2)
    found, value = search(objective, start, bounds=(-7, 9), rounds=6)
    assert value < 0.05 * objective(start)
    assert sum(found.projections) + found.final_projections == 8  # the cost is kept
    assert found.num_steps == 3


def test_search_stays_within_what_the_model_knows():
    found, _ = search(lambda plan: plan.log_snrs[0] - plan.log_snrs[-1],
                      InferenceSchedule((-6.0, 8.0), (0, 0)), bounds=(-7, 9), rounds=3)  # fmt: skip
    assert found.log_snrs[0] >= -7 and found.log_snrs[-1] <= 9
    assert len(list(moves(found, 1.0, 1))) == 4 + 6


def test_search_improves_what_is_heard():
    model, wave = vocoder(), speech("LJ80-07", 1.0)[:, : 256 * 60]
    clip = Clip("a", wave[0], HIFIGAN.mel(wave)[0])
    objective = distance_on(model, [clip])
    start = InferenceSchedule((-6.0, 1.0, 8.0), (0, 0, 4), 0)
    _, value = search(objective, start, bounds=model.log_snr_bounds(), rounds=1)
    assert value < objective(start)


def test_evaluation_puts_yardsticks_beside_the_model():
    wave = speech("LJ80-07", 1.5)[:, : 256 * 120]
    clip = Clip("a", wave[0], HIFIGAN.mel(wave)[0])
    config = VocoderSamplingConfig(3, projections=1, final_projections=3)
    scores = evaluate(vocoder(), [clip], config)
    assert [one.system for one in scores] == [
        "3 evaluations", "network alone, 3 evaluations", "projection alone, 6 iterations",
        "Griffin-Lim, 32 iterations", "recordings",
    ]  # fmt: skip
    assert json.dumps(scores[0].metrics)
    assert scores[2].metrics["log_mel_l1"] < 0.5 < scores[1].metrics["log_mel_l1"]
    kurtosis = [one.metrics["residual_kurtosis"] for one in scores]
    assert kurtosis[4] == max(kurtosis) > 6


# --------------------------------------------------------------------- spectral training


def test_training_on_its_own_samples_brings_the_spectrum_nearer():
    """One batch, learned by the loss of recipes/audio/speech_fast.yaml, is sampled better."""
    torch.manual_seed(0)
    process = GaussianProcess(LogSNRSchedule(9, -7), "v")
    model = Vocoder(
        SpectralDomain(spectral_weight=1.0, spectral_power=0.0),
        process, MDCTDenoiser(width=48, depth=1), VocoderSamplingConfig(2, "ddim", -5, 5), 0.5,
    )  # fmt: skip
    assert isinstance(model.task(), RolloutTask)
    wave = speech(seconds=1)[:, 20 * 256 : 36 * 256]
    mel = HIFIGAN.mel(wave)
    before = float(spectral_distance(model.synthesize(mel), wave))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    generator, task = torch.Generator().manual_seed(0), model.task()
    batch = {"wave": wave.expand(2, -1), "mel": mel.expand(2, -1, -1)}
    for _ in range(40):
        optimizer.zero_grad()
        sum(one.mean() for one in task.losses(batch, generator).values()).backward()
        optimizer.step()
    assert float(spectral_distance(model.synthesize(mel), wave)) < 0.8 * before


def test_a_band_limit_leaves_searched_schedules():
    model = vocoder()
    model.searched[3] = InferenceSchedule((-4.0, 0.0, 5.0), (0, 0, 1), 1)
    assert model.plan(band_limit="none") is model.searched[3]
    wave = speech("LJ80-07", 1.0)[:, : 256 * 80]
    whole, limited = (
        model.synthesize(HIFIGAN.mel(wave), band_limit=one) for one in ("auto", "4000")
    )
    torch.testing.assert_close(band_limited(whole, RATE, 4000), limited)

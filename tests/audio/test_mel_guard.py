"""Mels on other scales never make sound; right ones do, and a stated scale is undone exactly."""

import dataclasses
import logging
import math

import numpy as np
import pytest
import torch
from sounds import RATE, STARTER, speech

from multidiff.audio.data.mel_files import read_mel, write_mel
from multidiff.audio.data.mel_guard import MelStatistics, fault_of
from multidiff.audio.data.mel_input import mel_batch
from multidiff.audio.data.mel_scale import mel_scale_named
from multidiff.audio.mel import PRESETS, MelPreset
from multidiff.audio.vocoder.domains import SpectralDomain
from multidiff.audio.vocoder.inference_schedule import VocoderSamplingConfig
from multidiff.audio.vocoder.mdct_denoiser import MDCTDenoiser
from multidiff.audio.vocoder.model import Vocoder
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.schedules import LogSNRSchedule
from multidiff.utils.errors import InputError

HIFIGAN = PRESETS["hifigan-22k"]
FLOOR = math.log(1e-5)
NAMES = sorted(path.stem for path in STARTER.glob("*.flac"))


def mel_of(wave, preset=HIFIGAN):
    wave = torch.as_tensor(wave, dtype=torch.float32).reshape(1, -1)
    return preset.mel(wave[:, : wave.shape[1] // preset.hop_length * preset.hop_length])[0].numpy()


MELS = {name: mel_of(speech(name)) for name in NAMES}


def fault(mel, preset=HIFIGAN):
    return fault_of(MelStatistics.of(mel, preset), preset)


def tiny():
    torch.manual_seed(0)
    process = GaussianProcess(LogSNRSchedule(9, -7), "v")
    plans = VocoderSamplingConfig(2, projections=1, final_projections=1)
    return Vocoder(SpectralDomain(), process, MDCTDenoiser(width=16, depth=1), plans).eval()


# ------------------------------------------------------------------------- wrong scales

TEN = math.log(10)
SCALES = {
    "[-1, 1]": (lambda m: (m - FLOOR) / (2 - FLOOR) * 2 - 1, r"\[-1, 1\].*range:-1:1:-11.5129:2"),
    "[0, 1]": (lambda m: (m - FLOOR) / (2 - FLOOR), r"\[0, 1\].*range:0:1:-11.5129:2"),
    "[-4, 4]": (lambda m: (m - FLOOR) / (2 - FLOOR) * 8 - 4, r"\[-4, 4\].*range:-4:4"),
    "[-4, 4] by its own ends": (lambda m: (m - m.min()) / np.ptp(m) * 8 - 4, r"\[-4, 4\]"),
    "mean and deviation": (lambda m: (m - m.mean()) / m.std(), "normalised.*standard:"),
    "those of LJ Speech": (lambda m: (m + 5.536622) / 2.116101, "normalised"),
    "those of each band": (
        lambda m: (m - m.mean(1, keepdims=True)) / m.std(1, keepdims=True), "not on the scale"
    ),
    "decibels": (lambda m: 20 * m / TEN, "decibels"),
    "decibels below the peak": (lambda m: np.maximum(20 * (m - m.max()) / TEN, -80), "decibels"),
    "decimal": (lambda m: m / TEN, "decimal.*log10"),
    "powers": (lambda m: 2 * m, "powers"),
    "powers over the floor": (lambda m: np.maximum(2 * m, FLOOR), "powers"),
    "whisper": (
        lambda m: (np.maximum(2 * m / TEN, (2 * m / TEN).max() - 8) + 4) / 4, "Whisper's"
    ),
    "linear": (np.exp, "without a logarithm.*linear"),
    "upside down": (lambda m: -m - 9, "not on the scale"),
    "affine": (lambda m: 0.55 * m - 5, "affine map.*times:"),
    "affine, below the floor": (lambda m: 0.2 * m - 12, "not on the scale"),
}  # fmt: skip


@pytest.mark.parametrize("scale", SCALES)
def test_no_other_scale_makes_sound(scale):
    change, reason = SCALES[scale]
    model = tiny()
    for mel in MELS.values():
        with pytest.raises(InputError, match=reason) as caught:
            model.synthesize(change(mel)[None])
        assert "\n" not in str(caught.value)


def test_random_affine_maps_make_no_sound():
    rng = np.random.default_rng(0)
    factors = np.concatenate([np.geomspace(0.02, 0.65, 12), np.geomspace(1.6, 20, 8)])
    for number, factor in enumerate(factors):
        mel = MELS[NAMES[number % len(NAMES)]]
        assert fault(factor * mel + rng.uniform(-10, 4)), factor


# ------------------------------------------------------------------------- right mels


def changed(wave, kind):
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(len(wave))
    silence = np.zeros(RATE // 2)
    changes = {
        "as it is": wave,
        "quiet": 0.01 * wave,
        "quiet, 16 bits": np.round(327.68 * wave) / 32768,
        "next to silence": 0.001 * wave,
        "noisy": wave + wave.std() * noise,
        "nothing but noise": 0.01 * noise,
        "silence around it": np.concatenate([silence, wave, silence]),
        "digital silence": np.zeros(RATE),
        "clipped": np.clip(20 * wave, -1, 1),
        "8 bits": np.round(128 * wave) / 128,
    }
    return changes[kind]


KINDS = ["as it is", "quiet", "quiet, 16 bits", "next to silence", "noisy", "nothing but noise",
         "silence around it", "digital silence", "clipped", "8 bits"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_right_mels_pass(kind):
    for name in NAMES[:3]:
        mel = mel_of(changed(speech(name)[0].numpy(), kind))
        assert fault(mel) is None, (name, kind)
        assert fault(mel.astype(np.float16)) is None


def test_short_right_mels_pass():
    rng = np.random.default_rng(0)
    for frames in (3, 5, 8, 20):
        for mel in MELS.values():
            for first in rng.integers(0, mel.shape[1] - frames, 6):
                assert fault(mel[:, first : first + frames]) is None, (frames, first)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_speech_is_on_the_scale_of_every_preset(name):
    preset = PRESETS[name]
    mel = mel_of(speech(seconds=3), preset)
    assert fault(mel, preset) is None
    assert fault(0.3 * mel + 0.1, preset)
    # From silence to clipping, which decibels of 0 to 1 have exactly.
    loud = np.concatenate([np.zeros(RATE), np.sign(speech(seconds=2)[0].numpy())])
    assert fault(mel_of(loud, preset), preset) is None


def test_a_constant_offset_is_loudness(caplog):
    mel = MELS[NAMES[0]]
    for offset in (-6, -1, 0.5, 1.5):
        assert fault(mel + offset) is None
    with caplog.at_level(logging.WARNING):
        (taken,) = mel_batch(mel - 3, HIFIGAN)
    assert "raised to it" in caplog.text
    assert float(taken.min()) == pytest.approx(FLOOR)
    assert "louder than" in fault(mel + 6)


def test_a_lower_floor_is_raised_to_the_presets(caplog):
    silence = np.full((80, 8), math.log(1e-7), np.float32)
    mel = MELS[NAMES[0]]
    with caplog.at_level(logging.WARNING):
        (taken,) = mel_batch(np.concatenate([silence, mel], axis=1), HIFIGAN)
    assert "below the floor of hifigan-22k (-11.51) are raised" in caplog.text
    wanted = np.concatenate([np.full((80, 8), FLOOR, np.float32), mel], axis=1)
    np.testing.assert_allclose(taken.numpy(), wanted, atol=1e-5)


def test_predicted_mels_are_smooth_and_pass_with_a_warning(caplog):
    from scipy.ndimage import gaussian_filter

    wave = np.concatenate([np.zeros(RATE // 4), speech(NAMES[1])[0].numpy()])
    mel = np.maximum(gaussian_filter(mel_of(wave), 0.8), FLOOR + 0.05)
    with caplog.at_level(logging.WARNING):
        mel_batch(mel, HIFIGAN)
    assert "smoother than any recording" in caplog.text
    assert fault(mel / TEN)


def test_padding_that_would_sound_is_refused():
    mel = MELS[NAMES[0]][:, :100]
    assert "last 20 frames hold one constant" in fault(np.pad(mel, ((0, 0), (0, 20))))
    assert fault(np.pad(mel, ((0, 0), (0, 20)), constant_values=FLOOR)) is None


def test_what_shows_no_scale_is_refused():
    assert "too even" in fault(np.full((80, 50), -3.0))
    assert "too few" in fault(MELS[NAMES[0]][:, 100:102])


# ------------------------------------------------------------------------- stated scales

STATED = {
    "natural": lambda m: m,
    "log10": lambda m: m / TEN,
    "decibels": lambda m: 20 * m / TEN,
    "linear": np.exp,
    "range:-1:1:-11.5129:2": lambda m: (m + 11.5129) / 13.5129 * 2 - 1,
    "range:0:1:-12:2.5": lambda m: (m + 12) / 14.5,
    "standard:-5.536622:2.116101": lambda m: (m + 5.536622) / 2.116101,
    "times:0.5:-1": lambda m: 2 * (m + 1),
    "preset": lambda m: m,
}


@pytest.mark.parametrize("scale", STATED)
def test_a_stated_scale_is_undone_exactly(scale):
    mel = MELS[NAMES[0]].astype(np.float64)
    (found,) = mel_batch(STATED[scale](mel), HIFIGAN, scale=scale)
    np.testing.assert_allclose(found.numpy(), mel, atol=2e-5)


def test_a_stated_scale_reaches_presets_of_other_logarithms():
    lmnt = PRESETS["lmnt-diffwave"]
    wave = speech(seconds=1)[:, : 256 * 80]
    magnitude = lmnt.bands(lmnt.spectrum(wave).abs())
    (found,) = mel_batch(torch.log(magnitude), lmnt, scale="natural")
    torch.testing.assert_close(found[None], lmnt.mel(wave), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "text", ["log", "range:1:2", "range:1:1:0:2", "standard:1:0", "times:a:b", "natural:1", ""]
)
def test_scales_that_are_none(text):
    with pytest.raises(InputError, match="--mel-scale"):
        mel_scale_named(text)


def test_a_stated_scale_that_cannot_be_it():
    with pytest.raises(InputError, match="beyond what hifigan-22k gives for any sound"):
        mel_batch(MELS[NAMES[0]], HIFIGAN, scale="times:-1:0".replace("-1", "9") + "9")
    with pytest.raises(InputError, match="linear cannot be right"):
        mel_batch(MELS[NAMES[0]], HIFIGAN, scale="linear")


# ------------------------------------------------------------------------- what is handed over


def test_arrays_of_any_float_type_and_rank():
    model = tiny()
    mel = MELS[NAMES[0]][:, :30]
    wanted = model.synthesize(torch.from_numpy(mel)[None])
    for same in (mel, mel[None], mel.astype(np.float64), torch.from_numpy(mel).double()):
        torch.testing.assert_close(model.synthesize(same), wanted)
    for half in (mel.astype(np.float16), torch.from_numpy(mel).bfloat16()[None]):
        assert model.synthesize(half).shape == wanted.shape == (1, 30 * 256)


def test_arrays_that_are_no_mels():
    mel = MELS[NAMES[0]][:, :30]
    for wrong, reason in (
        (mel.T, "transpose it"),
        (mel.T[None], "transpose it"),
        (mel[0], "has shape"),
        (mel[:, :1], "1 frame, too short"),
        (mel[:, :0], "has shape"),
        (mel[None, None], "has shape"),
        ((100 * mel).astype(int), "int64"),
        (mel * np.nan, "not finite"),
        (np.zeros((0, 80, 9)), "has shape"),
    ):
        with pytest.raises(InputError, match=reason):
            tiny().synthesize(wrong)


def test_padding_is_not_sounded():
    """Each item of a padded batch is what it is alone, and zeros follow."""
    model = tiny()
    mels = [
        MELS[name][:, 40 : 40 + frames] for name, frames in zip(NAMES, (30, 18, 30), strict=False)
    ]
    padded = np.stack([np.pad(mel, ((0, 0), (0, 30 - mel.shape[1]))) for mel in mels])
    waves = model.synthesize(padded, lengths=[30, 18, 30], seed=4)
    for row, mel in enumerate(mels):
        alone = model.synthesize(mel, seed=4 + row)[0]
        torch.testing.assert_close(waves[row, : len(alone)], alone, rtol=0, atol=1e-4)
        assert float(waves[row, len(alone) :].abs().sum()) == 0
    for lengths in ([30, 18], [30, 18, 31], [0, 1, 2]):
        with pytest.raises(InputError, match="lengths"):
            model.synthesize(padded, lengths=lengths)


# ------------------------------------------------------------------------- what files state


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_files_state_preset_and_scale(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    mel = torch.from_numpy(MELS[NAMES[0]][:, :40]).contiguous()
    write_mel(path, mel, HIFIGAN)
    found = read_mel(path, HIFIGAN)
    torch.testing.assert_close(found.frames(0, 40)[0], mel)
    with pytest.raises(InputError, match="states the scale preset"):
        read_mel(path, HIFIGAN, scale="log10")
    # A flat mel, which nothing but its statement can place.
    write_mel(path, torch.full((80, 20), -3.0), HIFIGAN)
    assert read_mel(path, HIFIGAN).num_frames == 20
    for change in ({"centred": True}, {"under_root": 0.0}, {"win_length": 800}, {"hop_length": 300},
                   {"power": 2}, {"norm": None}):  # fmt: skip
        other = dataclasses.replace(HIFIGAN, name="other", **change)
        write_mel(path, mel, other)
        (key,) = change
        with pytest.raises(InputError, match=f"was made with .*{key}"):
            read_mel(path, HIFIGAN)
    with pytest.raises(InputError, match=r"written as \.npz or \.safetensors"):
        write_mel(tmp_path / "a.npy", mel, HIFIGAN)


def test_the_same_name_with_other_framing_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", mel=MELS[NAMES[0]], preset="hifigan-22k", centred=True)
    with pytest.raises(InputError, match="centred True"):
        read_mel(tmp_path / "a.npz", HIFIGAN)


def test_files_that_state_nothing_are_stated_by_the_caller(tmp_path):
    mel = MELS[NAMES[0]]
    np.save(tmp_path / "a.npy", mel / TEN)
    found = read_mel(tmp_path / "a.npy", HIFIGAN, scale="log10")
    np.testing.assert_allclose(found.frames(0, 9)[0].numpy(), mel[:, :9], atol=1e-4)
    with pytest.raises(InputError, match="--mel-preset lmnt-diffwave: differs in"):
        read_mel(tmp_path / "a.npy", HIFIGAN, made_by="lmnt-diffwave")
    np.save(tmp_path / "flat.npy", np.full((80, 20), -3.0, np.float32))
    assert read_mel(tmp_path / "flat.npy", HIFIGAN, made_by="hifigan-22k").num_frames == 20
    with pytest.raises(InputError, match="unknown mel preset 'hifigan'"):
        read_mel(tmp_path / "a.npy", HIFIGAN, made_by="hifigan")


# ------------------------------------------------------------------------- presets of one's own


def test_presets_that_are_none():
    for change, reason in (
        ({"hop_length": 0}, "at least 1"),
        ({"win_length": 2048}, "increasing order"),
        ({"f_max_hz": 20000}, "half of the rate"),
        ({"floor": 0.0}, "floor 0"),
        ({"name": " "}, "needs a name"),
        ({"name": "hifigan-22k", "power": 2}, "differs from the preset of this name in power"),
    ):
        with pytest.raises(ValueError, match=reason):
            dataclasses.replace(HIFIGAN, **{"name": "mine", **change})
    with pytest.raises(TypeError):
        PRESETS["mine"] = HIFIGAN
    assert isinstance(HIFIGAN, MelPreset)

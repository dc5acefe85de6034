"""Sound of a mel that is still arriving: equal to that of the whole, as dear, in time."""

from typing import Any

import numpy as np
import pytest
import torch
from sounds import speech

from multidiff.audio.mel import PRESETS
from multidiff.audio.vocoder.domains import SpectralDomain, WaveformDomain
from multidiff.audio.vocoder.inference_schedule import VocoderSamplingConfig
from multidiff.audio.vocoder.mdct_denoiser import MDCTDenoiser
from multidiff.audio.vocoder.model import Vocoder
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.schedules import LogSNRSchedule
from multidiff.utils.errors import InputError

STEPS = 3


def vocoder(mel="hifigan-22k", hop=128, depth=2):
    """Small, with weights that do something."""
    torch.manual_seed(0)
    denoiser = MDCTDenoiser(mel, hop, width=16, depth=depth)
    torch.nn.init.normal_(denoiser.write.weight, std=0.05)
    process = GaussianProcess(LogSNRSchedule(9, -7), "v")
    sampling = VocoderSamplingConfig(STEPS, log_snr_min=-5, log_snr_max=5)
    return Vocoder(SpectralDomain(mel, hop), process, denoiser, sampling).eval()


def a_mel(preset, hops=70):
    return preset.mel(speech("LJ80-07", 2.0)[:, : preset.hop_length * hops])


def cut(mel, sizes):
    ends = np.cumsum(sizes)
    assert ends[-1] == mel.shape[2]
    return [mel[0, :, end - size : end] for end, size in zip(ends, sizes, strict=True)]


@pytest.mark.parametrize(
    ("name", "hop"), [("hifigan-22k", 128), ("hifigan-22k", 256), ("vocos-24k", 64)]
)
@pytest.mark.parametrize("sizes", [[1] * 5, [3, 0, 40, 2], [200], [20, 1, 1, 17]])
def test_sound_equals_that_of_the_whole(name, hop, sizes):
    model = vocoder(name, hop)
    mel = a_mel(model.preset)
    sizes = [min(size, 60) for size in sizes]
    chunks = cut(mel, [*sizes, mel.shape[2] - sum(sizes)])
    parts = list(model.stream(iter(chunks), seed=4))
    whole = model.synthesize(mel, seed=4, mel_scale="preset", band_limit="none")[0]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=1e-4)


def test_it_lags_by_the_stated_frames_and_computes_each_frame_once():
    model = vocoder(depth=3)
    mel = a_mel(model.preset, 90)
    frames = []
    assert isinstance(model.denoiser, MDCTDenoiser)
    model.denoiser.write.register_forward_hook(lambda m, a, out: frames.append(out.shape[1]))
    arrived, made, worst = 0, 0, 0

    def chunks():
        nonlocal arrived
        for chunk in cut(mel, [1] * 90):
            arrived += 1
            yield chunk

    for part in model.stream(chunks()):
        made += len(part)
        # The chunk that was pulled to see whether the one before was the last does not count.
        worst = max(worst, arrived - 1 - made // 256) if arrived < 90 else worst
    ahead = model.look_ahead_frames()
    assert ahead - 2 <= worst <= ahead
    state_frames = model.domain.state_shape(1, 90)[2]
    assert sum(frames) == STEPS * state_frames


def test_refusals():
    model, chunk = vocoder(), a_mel(PRESETS["hifigan-22k"])[0]
    refused: list[tuple[dict[str, Any], str]] = [
        ({"final_projections": 1}, "projection needs the whole mel"),
        ({"sampler": "ddpm"}, "sampler ddim"),
        ({"band_limit": "4000"}, "no band limit"),
    ]
    for wrong, reason in refused:
        with pytest.raises(InputError, match=reason):
            model.stream([chunk], **wrong)
    for part, reason in (
        (chunk.exp(), "not on the scale"), (chunk[:79], "79 bands"), (chunk[:, :3] + 99, "beyond"),
        (chunk[:, :3] * torch.nan, "not finite"), (chunk[:, :3].int(), "holds floats"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=reason):
            list(model.stream([part]))
    model.domain = WaveformDomain("hifigan-22k")
    with pytest.raises(InputError, match="need a SpectralDomain"):
        model.stream([chunk])
    assert list(vocoder().stream([])) == []

"""The shipped voice: its size, and that it says what a text says, in about the time it takes."""

import torch

from multidiff.models.loading import WEIGHTS, load, shipped


def test_the_voice_is_small_and_speaks_at_a_human_pace():
    assert (shipped()["kathleen"] / WEIGHTS).stat().st_size < 10e6
    voice = load("kathleen")
    first, second = voice.mels(
        ["^ #h i #m ˈu v d #ə w ˈeɪ #k w ˈaɪ ə t l i .", "^ #j ˈɛ s ?"], durations=None
    )
    seconds = first.mel.shape[1] * voice.preset.hop_length / voice.preset.sample_rate_hz
    assert 1.0 < seconds < 2.5 and second.mel.shape[1] < first.mel.shape[1] / 2
    # Speech is loud where vowels are and quiet at its ends.
    loudness = first.mel.mean(dim=0)
    assert float(loudness.max() - loudness[:2].mean()) > 2 < float(loudness.max() - loudness[-2])
    (mean,) = voice.mels(["^ #j ˈɛ s ?"], steps=0)
    assert float(second.mel.diff(dim=0).abs().mean()) > float(mean.mel.diff(dim=0).abs().mean())
    assert torch.isfinite(first.mel).all()

"""What models are asked for, alike in every modality."""

import numpy as np
import pytest
import torch

import multidiff as md
from multidiff.models.requests import checked_seeds, one_each
from multidiff.text.request import TextRequest
from multidiff.utils.errors import InputError


def test_one_item_is_one_sample_and_others_are_refused():
    assert one_each("seven", str, "prompt") == ["seven"]
    assert one_each(("a", "b"), str, "prompt") == ["a", "b"]
    for wrong in (None, 3, b"seven", ["seven", None]):
        with pytest.raises(InputError, match="prompt"):
            one_each(wrong, str, "prompt")
    with pytest.raises(InputError, match="pass a list, with a TextRequest for each"):
        one_each("seven", TextRequest, "request")
    with pytest.raises(InputError, match="64 bits"):
        checked_seeds(2**64, 1)


@pytest.mark.parametrize("name", ["digits", "digit-tokens"])
def test_pictures_of_one_prompt_and_of_seeds_of_every_kind(name):
    model = md.load(name)
    found = model.generate("seven" if name == "digits" else "7", seed=np.int64(3), steps=1)
    assert len(found) == 1
    asked = ["seven" if name == "digits" else "7"]
    assert torch.equal(found, model.generate(asked, seed=[3], steps=1))
    assert len(model.generate(asked, seed=None, steps=1)) == 1
    with pytest.raises(InputError, match=r"seed 1\.5: must be an integer"):
        model.generate(asked, seed=1.5, steps=1)


@pytest.mark.parametrize("name", ["restaurant", "masked"])
def test_texts_of_one_order_and_of_seeds_of_every_kind(name):
    model, request = md.load(name), TextRequest(length=4)
    (found,) = model.generate(request, seed=np.int64(3), steps=2)
    assert [found] == model.generate([request], seed=[3], steps=2)
    assert len(model.generate([request], seed=None, steps=2)) == 1
    for wrong in ("seven", ["seven"]):
        with pytest.raises(InputError, match="TextRequest"):
            model.generate(wrong, steps=2)


def test_speech_of_seeds_of_every_kind(small_vocoder):
    vocoder = md.load(small_vocoder)
    mel = vocoder.preset.mel(torch.randn(1, 8000, generator=torch.Generator().manual_seed(0)) / 9)
    found = vocoder.synthesize(mel, seed=np.int64(3))
    assert torch.equal(found, vocoder.synthesize(mel, seed=[3]))
    assert vocoder.synthesize(mel, seed=None).shape == found.shape
    with pytest.raises(InputError, match="an integer"):
        vocoder.synthesize(mel, seed="x")

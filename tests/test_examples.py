"""The scripts of examples/ run, and do what they say, in a shortened form."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name):
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]


def test_toy_2d_lies_on_its_half_circles():
    assert example("toy_2d")(["--steps", "300"]) < 0.2  # 0.1; 0.4 untrained


def test_vocoder_from_folder_writes_a_sound(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    small = ["--steps", "2", "--width", "16", "--depth", "1", "--out", str(tmp_path / "voice")]
    wave, rate = soundfile.read(example("vocoder_from_folder")(["starter:speech", *small]))
    assert rate == 22050
    assert len(wave) > rate
    assert wave.std() > 1e-3


def test_guidance_lowers_variety(tmp_path):
    out = tmp_path / "sevens.png"
    options = ["the digit 7", "--scales", "1", "4", "--num", "6", "--steps", "5", "--out", str(out)]
    variety = example("guided_sampling")(options)
    assert variety[4.0] < variety[1.0]
    assert out.stat().st_size > 1000


def test_own_modality_learns_the_rules():
    assert example("own_modality")(["--steps", "80"]) > 0.5  # about 0.1 untrained


def test_a_sentence_is_likelier_than_its_shuffled_words():
    text, shuffled = example("text_likelihood")([])
    assert text + 1 < shuffled


def test_every_example_is_tested_and_short():
    tests = Path(__file__).read_text()
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert len(scripts) == 5
    for script in scripts:
        assert f'example("{script.stem}")' in tests
        assert len(script.read_text().splitlines()) <= 85

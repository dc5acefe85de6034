"""Lists of recordings and texts: how they are read, split and refused."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
from sounds import RATE, STARTER, speech, tones

from multidiff.audio.mel import PRESETS
from multidiff.audio.tts.transcripts import TranscribedSource
from multidiff.audio.tts.utterance import (
    ACTIVE_RMS,
    frame_energies,
    levelling_gain,
    speech_span,
)
from multidiff.audio.tts.utterances import Utterances
from multidiff.utils.errors import InputError

HIFIGAN = PRESETS["hifigan-22k"]


def listed(folder, *lines):
    folder.mkdir(exist_ok=True)
    (folder / "metadata.csv").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return str(folder)


def test_parts_share_no_recording_and_are_drawn_by_seed():
    source = TranscribedSource("starter:speech", validation=1, test=1)
    parts = {
        one: [t.name for t in source.transcripts(one)] for one in ("train", "validation", "test")
    }
    assert [len(parts[one]) for one in parts] == [2, 1, 1]
    assert len({name for names in parts.values() for name in names}) == 4
    assert parts["test"] == [t.name for t in source.transcripts("test")]
    drawn = {tuple(t.name for t in replace(source, seed=s).transcripts("test")) for s in range(9)}
    assert len(drawn) > 1


def test_ljspeech_lists_and_plain_lists_are_read(tmp_path):
    (tmp_path / "voice" / "wavs").mkdir(parents=True)
    soundfile.write(tmp_path / "voice" / "wavs" / "LJ1.wav", np.zeros(100), RATE)
    folder = listed(tmp_path / "voice", "LJ1|12 men|twelve men", "wavs/LJ1.wav|one man")
    found = TranscribedSource(folder).transcripts("train")
    assert [one.text for one in found] == ["twelve men", "one man"]
    assert {one.sound.name for one in found} == {"LJ1.wav"}


@pytest.mark.parametrize(
    ("lines", "reported"),
    [
        (["a.wav|hello", "b.wav|you"], r"metadata\.csv: 2 of its 2 recordings are not there"),
        (["a.wav"], r"metadata\.csv:1: has no file and text"),
        (["a.wav| "], r"metadata\.csv:1: has no file and text"),
        ([], "the list is empty"),
    ],
)
def test_wrong_lists_are_refused_in_one_line(tmp_path, lines, reported):
    with pytest.raises(InputError, match=reported) as fault:
        TranscribedSource(listed(tmp_path / "voice", *lines)).transcripts("train")
    assert "\n" not in str(fault.value)


def test_more_are_kept_than_there_are():
    with pytest.raises(InputError, match="4 recordings, of which validation and test take 5"):
        TranscribedSource("starter:speech", validation=2, test=3).transcripts("train")


def test_a_data_set_is_read_by_its_columns(tmp_path):
    import pyarrow
    import pyarrow.parquet

    content = (STARTER / "LJ80-07.flac").read_bytes()
    table = pyarrow.table({
        "audio": [{"bytes": content, "path": "a.flac"}] * 2,
        "said": ["He rebuilt scores of the ancient temples.", "Yes."],
    })  # fmt: skip
    pyarrow.parquet.write_table(table, tmp_path / "data.parquet")
    source = TranscribedSource(str(tmp_path), dataset_text_column="said")
    found = source.transcripts("train")
    assert [one.text for one in found][1] == "Yes."
    assert found[0].sound.content()[0] == content
    with pytest.raises(InputError, match="no column 'text'; it has"):
        TranscribedSource(str(tmp_path)).transcripts("train")


def test_loudness_and_silence_are_made_even():
    quiet = 0.05 * speech("LJ80-07", seconds=2.0)[0]
    padded = np.concatenate([np.zeros(RATE), quiet.numpy(), np.zeros(RATE)])
    wave = quiet.new_tensor(padded)
    wave = wave * levelling_gain(wave, HIFIGAN, "a.wav")
    energies = frame_energies(wave, HIFIGAN)
    active = energies[energies > 1e-3 * energies.max()].mean().sqrt()
    assert float(active) == pytest.approx(ACTIVE_RMS, rel=0.01) or float(wave.abs().max()) > 0.96
    first, last = speech_span(wave, HIFIGAN)
    assert 1.9 * RATE < (last - first) * HIFIGAN.hop_length < 2.3 * RATE
    with pytest.raises(InputError, match=r"a\.wav: is silent"):
        levelling_gain(quiet * 0, HIFIGAN, "a.wav")


def test_text_that_is_not_what_is_said_stops_or_is_dropped(tmp_path, caplog):
    folder = tmp_path / "voice"
    folder.mkdir()
    soundfile.write(folder / "a.wav", tones(0.3)[0].numpy(), RATE)
    soundfile.write(folder / "b.wav", tones(1.5)[0].numpy(), RATE)
    listed(folder, f"a.wav|{'many words ' * 9}", "b.wav|two words")
    sources = [TranscribedSource(str(folder))]
    with pytest.raises(InputError, match=r"a\.wav: \d+ phones in \d+ frames.*too_fast: drop"):
        Utterances(sources, crop_frames=8)
    kept = Utterances(sources, crop_frames=8, too_fast="drop")
    assert len(kept) == 1 and "dropped" in caplog.text


def test_a_source_of_which_all_is_dropped_is_named(tmp_path):
    folder, cache = tmp_path / "short", tmp_path / "cache"
    folder.mkdir()
    soundfile.write(folder / "a.wav", tones(0.3)[0].numpy(), RATE)
    listed(folder, f"a.wav|{'many words ' * 9}")
    sources = [TranscribedSource(str(folder))]
    with pytest.raises(InputError, match=r"short.*dropped.*correct the texts") as fault:
        Utterances(sources, crop_frames=8, cache=str(cache), too_fast="drop")
    assert "\n" not in str(fault.value)
    assert not list(cache.glob("utterances-*"))


def test_what_is_prepared_is_kept_and_is_the_same(tmp_path, monkeypatch):
    sources = [TranscribedSource("starter:speech", validation=1, test=2)]
    first = Utterances(sources, crop_frames=8, cache=str(tmp_path))
    assert len(list(tmp_path.glob("utterances-*.safetensors"))) == 1
    monkeypatch.setattr(
        "multidiff.audio.tts.utterances.prepare", lambda *_: pytest.fail("prepared again")
    )
    again = Utterances(sources, crop_frames=8, cache=str(tmp_path), part="validation")
    assert len(first) == len(again) == 1
    same = Utterances(sources, crop_frames=8, cache=str(tmp_path)).utterances[0]
    assert np.array_equal(same.mel, first.utterances[0].mel)
    assert same.durations.tolist() == first.utterances[0].durations.tolist()

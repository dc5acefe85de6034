"""Utterances in the store: the examples that memory gives, without their mels in memory."""

import numpy as np
import pytest
import torch
from sounds import STARTER

from multidiff.audio.mel import PRESETS
from multidiff.audio.tts import utterance_store
from multidiff.audio.tts.front_end import FrontEnd
from multidiff.audio.tts.transcripts import TranscribedSource
from multidiff.audio.tts.utterance import prepare
from multidiff.audio.tts.utterances import Utterances
from multidiff.data.batches import Batches
from multidiff.utils.errors import InputError

pytest.importorskip("gruut")
SOURCES = [
    TranscribedSource("starter:speech", speaker="lj", validation=1, repeat=2),
    TranscribedSource("starter:speech", speaker="other", test=2),
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIDIFF_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("multidiff.data.prepare.available_cores", lambda: 1)


@pytest.fixture(scope="module")
def in_memory():
    return {part: Utterances(SOURCES[:1], part=part) for part in ("train", "validation")}


@pytest.mark.parametrize("part", ["train", "validation"])
def test_the_same_examples_from_memory_and_from_disk(in_memory, part):
    wanted = in_memory[part]
    found = Utterances(SOURCES[:1], part=part, store="disk")
    assert len(found) == len(wanted) and np.array_equal(found.lengths, wanted.lengths)
    assert found.totals == wanted.totals and found.symbols >= wanted.symbols
    batches = [Batches(one, 2, seed=5, group_by_length=2) for one in (found, wanted)]
    for number in range(4):
        one, other = (source.batch(number) for source in batches)
        assert torch.equal(one["mel"], other["mel"]) and torch.equal(one["mask"], other["mask"])
        for key in ("phones", "speaker", "name"):
            assert one[key] == other[key]
        assert all(map(np.array_equal, one["durations"], other["durations"]))
    for one, other in zip(found.statistics(), wanted.statistics(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_crops_of_every_preset_are_those_of_the_whole_mel():
    for mel in ("wavegrad-paper-24k", "ivanvovk-wavegrad"):
        found = Utterances(SOURCES[:1], mel, 8, store="disk").utterances[0]
        transcript = SOURCES[0].transcripts("train")[0]
        wanted = prepare(transcript, "lj", FrontEnd("en-us"), PRESETS[mel])
        assert found.frames == wanted.frames
        for first in (0, 1, 50, found.frames - 9, found.frames - 1):
            count = min(9, found.frames - first)
            # A resampled recording is rounded to 16 bits.
            difference = np.abs(found.crop(first, count) - wanted.crop(first, count))
            assert difference.mean() < 0.05


def test_speakers_are_aligned_apart_and_parts_kept_apart(monkeypatch):
    monkeypatch.setattr(utterance_store, "ALIGNED_SECONDS", 12)
    found = Utterances(SOURCES, store="disk")
    names = [(one.speaker, one.name) for one in found.utterances]
    wanted = [
        (source.speaker, one.name) for source in SOURCES for one in source.transcripts("train")
    ]
    assert names == wanted
    assert found.visits.locate(np.arange(len(found)))[0].tolist() == [0, 0, 1, 1, 2, 2, 3, 4]
    for one in found.utterances:
        assert int(one.durations.sum()) == one.frames


def test_text_that_is_not_what_is_said_stops_or_is_dropped(tmp_path, caplog):
    lines = (STARTER / "metadata.csv").read_text("utf-8").splitlines()
    file, text = lines[0].split("|")[0], lines[0].split("|")[-1]
    path = next(STARTER.glob(f"**/{file}*"))
    listing = tmp_path / "list.csv"
    listing.write_text(f"{path}|{text * 9}\n{path}|{text}\n", "utf-8")
    sources = [TranscribedSource(str(listing))]
    with pytest.raises(InputError, match=r"phones in \d+ frames.*too_fast: drop"):
        Utterances(sources, store="disk")
    assert len(Utterances(sources, store="disk", too_fast="drop")) == 1

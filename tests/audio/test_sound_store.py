"""The store of decoded recordings: the same batches as from memory, and damage that is named."""

import os
import shutil

import numpy as np
import pytest
import soundfile
import torch
from sounds import RATE, STARTER, speech

from multidiff.audio.data import store as sound_store
from multidiff.audio.data.inspection import inspect
from multidiff.audio.data.segments import SpeechSegments
from multidiff.audio.data.sound import SoundFile
from multidiff.audio.data.sources import AudioSource
from multidiff.data.batches import Batches, stream
from multidiff.utils.errors import InputError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIDIFF_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("multidiff.data.prepare.available_cores", lambda: 1)


@pytest.fixture
def folder(tmp_path):
    """Two recordings of the package, a stereo one, a short and a narrow-band one."""
    folder = tmp_path / "voice"
    folder.mkdir()
    for path in sorted(STARTER.glob("*.flac"))[:2]:
        shutil.copy(path, folder)
    stereo = np.stack([speech(seconds=2)[0], 0.5 * speech(seconds=2)[0]], axis=1)
    soundfile.write(folder / "stereo.wav", stereo, RATE)
    soundfile.write(folder / "short.wav", speech(seconds=1)[0, 5000:5900], RATE)
    return folder


def batches_of(folder, workers=0, **options):
    source = AudioSource(str(folder), repeat=2, **options.pop("source", {}))
    segments = SpeechSegments([source], segment_frames=24, gain_db=(-6.0, 3.0), **options)
    count = len(segments) // 6 + 2  # into the second epoch
    return list(stream(Batches(segments, 6, seed=3), range(count), 0, 1, workers, False))


def assert_equal(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.keys() == other.keys() and one["name"] == other["name"]
        for key in ("wave", "mel", "band_hz"):
            assert torch.equal(one[key], other[key]), key


@pytest.mark.parametrize("store", ["disk", "seek"])
def test_the_same_batches_from_memory_and_from_disk(folder, store):
    (folder / "stereo.wav").unlink()  # the mean of two 16-bit channels has 17 bits
    wanted = batches_of(folder, store="memory")
    assert_equal(batches_of(folder, store=store), wanted)
    assert_equal(batches_of(folder, store=store, workers=2), wanted)


def test_sought_channels_are_mixed_as_in_memory(folder):
    assert_equal(batches_of(folder, store="seek"), batches_of(folder, store="memory"))


def test_small_sets_stay_in_memory_and_large_ones_go_to_the_store(folder, monkeypatch, tmp_path):
    SpeechSegments([AudioSource(str(folder))], segment_frames=24)
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr("multidiff.audio.data.survey.MEMORY_BUDGET", 1 << 20)
    SpeechSegments([AudioSource(str(folder))], segment_frames=24)
    assert any((tmp_path / "cache").glob("sound-*/columns.json"))


@pytest.mark.parametrize("every", [0, 2, 3])
def test_sides_of_the_split_are_those_of_memory(folder, every):
    for held_out in (False, True)[: 1 + (every > 0)]:
        sides = [
            SpeechSegments(
                [AudioSource(str(folder), held_out_every=every)],
                segment_frames=24, held_out=held_out, store=store,
            ).recordings[0]
            for store in ("memory", "disk")
        ]  # fmt: skip
        names = [[side.name(number) for number in range(len(side))] for side in sides]
        assert names[0] == names[1]
        assert np.array_equal(sides[0].contents, sides[1].contents)
        assert np.array_equal(sides[0].frames, sides[1].frames)


def test_other_rates_peaks_and_formats(tmp_path):
    folder = tmp_path / "voice"
    folder.mkdir()
    loud = 1.4 * speech(seconds=2)[0] / speech(seconds=2).abs().max()
    soundfile.write(folder / "loud.wav", loud, RATE, subtype="FLOAT")
    soundfile.write(folder / "rate.flac", speech(seconds=2)[0], 16000)
    soundfile.write(folder / "lossy.mp3", speech(seconds=2)[0], 24000, format="MP3")
    wanted = batches_of(folder, store="memory")
    for store, atol in (("disk", 1e-4), ("seek", 1e-4)):
        for one, other in zip(batches_of(folder, store=store), wanted, strict=True):
            assert one["name"] == other["name"]
            torch.testing.assert_close(one["wave"], other["wave"], rtol=0, atol=atol)
            torch.testing.assert_close(one["band_hz"], other["band_hz"], rtol=0, atol=0)
    sought = SpeechSegments([AudioSource(str(folder))], segment_frames=24, store="seek")
    samples = sought.recordings[0].table.variable("samples")
    assert (samples.lengths(slice(None)) > 0).tolist() == [True, False, False]  # lossy loud rate


def test_a_recording_longer_than_memory_is_spooled(folder, monkeypatch):
    wanted = batches_of(folder, store="disk")
    monkeypatch.setattr(sound_store, "MEMORY_BYTES", 1000)
    monkeypatch.setattr(sound_store, "VERSION", 0)
    assert_equal(batches_of(folder, store="disk"), wanted)


def test_many_parts_make_the_same_store(folder, monkeypatch):
    wanted = batches_of(folder, store="disk")
    monkeypatch.setattr(sound_store, "PART_SECONDS", 1)
    monkeypatch.setattr(sound_store, "VERSION", 0)
    assert_equal(batches_of(folder, store="disk"), wanted)


def test_unreadable_recordings_are_reported_and_have_no_row(folder, caplog):
    (folder / "a.wav").write_text("no sound")
    found = SpeechSegments([AudioSource(str(folder))], segment_frames=8, store="disk")
    assert len(found.recordings[0]) == 4 and "a.wav" in caplog.text
    soundfile.write(folder / "b.wav", np.zeros(9000), RATE)
    with pytest.raises(InputError, match="2 of 6 items cannot be read"):
        SpeechSegments([AudioSource(str(folder))], segment_frames=8, store="disk")


def test_a_data_set_is_stored_too(tmp_path):
    datasets = pytest.importorskip("datasets")
    files = sorted(STARTER.glob("*.flac"))[:3]
    rows = {"audio": [{"bytes": f.read_bytes(), "path": f.name} for f in files]}
    (tmp_path / "table").mkdir()
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "table" / "part.parquet")
    wanted = batches_of(tmp_path / "table", store="memory")
    assert_equal(batches_of(tmp_path / "table", store="disk"), wanted)


def test_changed_recordings_are_stored_again(folder):
    before = batches_of(folder, store="disk")
    soundfile.write(folder / "short.wav", speech(seconds=1)[0, 7000:7900], RATE)
    after = batches_of(folder, store="disk")
    assert not all(torch.equal(*pair) for pair in zip(
        [one["wave"] for one in before], [one["wave"] for one in after], strict=True
    ))  # fmt: skip


def test_copies_among_held_out_recordings_are_named(folder):
    class Model:
        preset = SpeechSegments([AudioSource("starter:speech")], segment_frames=8).preset

    sides = [
        Batches(SpeechSegments([AudioSource(str(path))], segment_frames=8, store=store), 1)
        for path, store in ((folder, "disk"), (STARTER, "memory"))
    ]
    (line,) = inspect(Model, *sides)
    assert line.startswith("2 of 4 held-out recordings")


def damaged(folder, spoil):
    """Segments whose store is spoilt before it is read."""
    segments = SpeechSegments([AudioSource(str(folder))], segment_frames=8, store="disk")
    (samples,) = segments.recordings[0].table.folder.glob("0*/samples")
    spoil(samples)
    for side in segments.recordings:
        for number, frames in enumerate(side.frames.tolist()):
            side.cut(number, 0, frames)


def test_damage_of_the_store_is_named(folder):
    def flip(path):
        with path.open("r+b") as file:
            file.seek(70_000)
            byte = file.read(1)
            file.seek(70_000)
            file.write(bytes([byte[0] ^ 1]))

    with pytest.raises(InputError, match=r"samples: bytes 65,536 and on differ"):
        damaged(folder, flip)
    shutil.rmtree(os.environ["MULTIDIFF_CACHE_DIR"])
    with pytest.raises(InputError, match=r"samples: was cut short"):
        damaged(folder, lambda path: os.truncate(path, 70_000))
    with pytest.raises(InputError, match=r"samples: has 70,000 of"):
        SpeechSegments([AudioSource(str(folder))], segment_frames=8, store="disk")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sought_file_that_goes_in_a_run_is_named(folder, workers):
    segments = SpeechSegments([AudioSource(str(folder))], segment_frames=8, store="seek")
    (folder / "stereo.wav").unlink()
    batches = stream(Batches(segments, len(segments)), range(1), 0, 1, workers, False)
    with pytest.raises(InputError, match=r"^\S*stereo\.wav: cannot be read") as reported:
        next(batches)
    assert len(str(reported.value)) < 300


def test_the_resampled_store_is_near_the_whole_recording(tmp_path):
    folder = tmp_path / "voice"
    folder.mkdir()
    soundfile.write(folder / "a.flac", speech(seconds=3)[0], 24000)
    side = SpeechSegments([AudioSource(str(folder))], segment_frames=8, store="disk").recordings[0]
    whole = SoundFile(folder / "a.flac").read(RATE)
    wave, _ = side.cut(0, 17, 40)
    torch.testing.assert_close(wave, whole[17 * 256 : 57 * 256], rtol=0, atol=1 / 32768)

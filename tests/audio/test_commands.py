"""`multidiff synth`, `sample` and `eval` on real speech, and what they refuse."""

import csv
import resource
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from commands import complains, does, facts
from program import ENVIRONMENT, MULTIDIFF, ROOT, refused, start
from safetensors.torch import save_file
from sounds import RATE, STARTER, speech, tones

from multidiff.audio import synthesis
from multidiff.audio.data.segments import AudioSource
from multidiff.audio.data.sound import SoundFile, SoundFormat, write_sound
from multidiff.audio.mel import PRESETS
from multidiff.audio.metrics.pairs import METRICS
from multidiff.utils.files import write_error as refused_by_system

HIFIGAN = PRESETS["hifigan-22k"]
CLIP = "starter:speech/LJ80-07.flac"


@pytest.fixture(scope="module")
def vocoder(small_vocoder):
    return ["--model", small_vocoder]


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "in" / "clip.wav"
    path.parent.mkdir()
    soundfile.write(path, speech(seconds=1.0)[0].numpy(), RATE)
    return path


def samples(path):
    return soundfile.read(path, dtype="float32")[0]


# ------------------------------------------------------------------------------ good input


def test_the_main_job(tmp_path, capsys, vocoder):
    """A recording's mel becomes a sound of the same length, and the speed is reported."""
    out = tmp_path / "spoken.wav"
    reported = does(capsys, "synth", CLIP, "-o", out, *vocoder)
    assert "real-time factor" in reported and "1 thread" in reported and str(out) in reported
    assert len(samples(out)) == len(speech("LJ80-07")[0])
    assert soundfile.info(out).samplerate == RATE


def test_the_shipped_model_speaks_better_than_griffin_lim(tmp_path, capsys):
    from multidiff.audio.metrics.pairs import compare, griffin_lim

    out, said = tmp_path / "spoken.flac", tmp_path / "said.wav"
    clean = speech("LJ80-07", seconds=3.0)[0]
    clean = clean[: len(clean) // 256 * 256]
    soundfile.write(said, clean.numpy(), RATE)
    reported = facts(capsys, "synth", said, "-o", out)
    assert reported["steps"] <= 8 and reported["outputs"][0]["output"] == str(out)
    made = torch.from_numpy(samples(out))[: len(clean)]
    ours = compare(clean, made, HIFIGAN)
    theirs = compare(clean, griffin_lim(HIFIGAN.mel(clean[None])[0], HIFIGAN, len(clean)), HIFIGAN)
    assert ours["pesq"] > theirs["pesq"] + 0.3 and ours["estoi"] > theirs["estoi"]
    assert ours["log_mel_l1"] < 0.1 and ours["multi_stft"] < theirs["multi_stft"]


def test_seeds_and_steps(tmp_path, capsys, vocoder, clip):
    def made(*options):
        does(capsys, "synth", clip, "-o", tmp_path / "a.wav", *vocoder, *options)
        return (tmp_path / "a.wav").read_bytes()

    first = made("--seed", 1)
    assert made("--seed", 1) == first
    others = [made("--seed", 2), made("--seed", 1, "--steps", 5), made("--sampler", "dpm++")]
    assert len({first, *others}) == 4


def test_mels_of_every_kind_sound_as_their_recording(tmp_path, capsys, vocoder, clip):
    mel = HIFIGAN.mel(torch.nn.functional.pad(speech(seconds=1.0), (0, 222)))[0]
    np.save(tmp_path / "npy.npy", mel.numpy())
    np.savez(tmp_path / "npz.npz", mel=mel.numpy(), sample_rate_hz=RATE)
    save_file({"mel": mel}, tmp_path / "tensors.safetensors", {"preset": "hifigan-22k"})
    mels = [tmp_path / name for name in ("npy.npy", "npz.npz", "tensors.safetensors")]
    does(capsys, "synth", clip, *mels, "-o", tmp_path / "out", *vocoder)
    recording = samples(tmp_path / "out" / "clip.wav")
    for path in mels:
        made = samples(tmp_path / "out" / f"{path.stem}.wav")
        assert len(made) == mel.shape[1] * 256
        assert np.abs(made[: len(recording)] - recording).max() < 1e-3


def test_a_folder_of_all_kinds_of_sound(tmp_path, capsys, vocoder):
    """Wav, flac, ogg, mp3; other rates; eight channels; float and 24-bit samples."""
    folder = tmp_path / "in" / "deep"
    folder.mkdir(parents=True)
    wave = tones(0.4)[0].numpy()
    eight = np.stack([wave] * 8, axis=1)
    soundfile.write(folder / "eight.wav", eight, RATE)
    soundfile.write(folder / "float.wav", wave, RATE, subtype="FLOAT")
    soundfile.write(folder / "deep.flac", wave, 48000, subtype="PCM_24")
    soundfile.write(folder / "ogg.ogg", wave, RATE)
    soundfile.write(folder / "mp3.mp3", wave, 44100)
    soundfile.write(folder / "fast.wav", np.repeat(wave, 16), 384000)
    soundfile.write(folder / "slow.wav", wave, 8000)
    reported = facts(capsys, "synth", tmp_path / "in", "-o", tmp_path / "out", *vocoder)
    outputs = {Path(one["output"]).stem: one["seconds"] for one in reported["outputs"]}
    assert set(outputs) == {"eight", "float", "deep", "ogg", "mp3", "fast", "slow"}
    for path in folder.iterdir():
        wanted = SoundFile(path).length / SoundFile(path).rate_hz
        assert outputs[path.stem] == pytest.approx(wanted, abs=1.5 / RATE)
    assert reported["real_time_factor"] > 0 and reported["threads"] == 1


def test_shortest_and_odd_lengths(tmp_path, capsys, vocoder):
    for length in (256, 257, 511, 1000):
        soundfile.write(tmp_path / "in.wav", tones(0.1)[0, :length].numpy(), RATE)
        does(capsys, "synth", tmp_path / "in.wav", "-o", tmp_path / "out.wav", *vocoder)
        assert len(samples(tmp_path / "out.wav")) == length


def test_one_bad_file_does_not_stop_the_others(tmp_path, capsys, vocoder, clip):
    (clip.parent / "bad.wav").write_text("no sound")
    reported = complains(capsys, "synth", clip.parent, "-o", tmp_path / "out", *vocoder)
    assert "bad.wav" in reported
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["clip.wav"]


def test_a_full_folder_for_temporary_files_stops_recordings_alone(
    tmp_path, capsys, vocoder, clip, monkeypatch
):
    """A mel needs no such file: it is spoken whatever becomes of the recordings around it."""
    np.save(clip.parent / "b.npy", HIFIGAN.mel(speech(seconds=0.5)[0][None])[0].numpy())
    (clip.parent / "c.wav").write_bytes(clip.read_bytes())
    capsys.readouterr()

    class Full:
        name = "full"

        def write(self, *_):
            raise OSError(28, "No space left on device")

        close = flush = write  # what is left in the buffer cannot be written either

    monkeypatch.setattr(synthesis.tempfile, "NamedTemporaryFile", lambda *_, **__: Full())
    reported = complains(capsys, "synth", clip.parent, "-o", tmp_path / "out", *vocoder, lines=2)
    for line, name in zip(reported.splitlines(), ("c.wav", "clip.wav"), strict=True):
        assert name in line and "the disk is full" in line and "TMPDIR" in line
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.wav"]


def test_hidden_files_are_no_inputs(tmp_path, capsys, vocoder, clip):
    """A killed run leaves such a file; others are made by systems that copy folders."""
    (clip.parent / ".clip.wav.999.tmp.wav").write_bytes(clip.read_bytes())
    (clip.parent / ".Trash").mkdir()
    (clip.parent / ".Trash" / "b.wav").write_bytes(clip.read_bytes())
    found = facts(capsys, "synth", clip.parent, "-o", tmp_path / "out", *vocoder)
    assert [Path(one["input"]).name for one in found["outputs"]] == ["clip.wav"]
    assert [Path(one.source).name for one in AudioSource(str(clip.parent)).recordings()] == [
        "clip.wav"
    ]


@pytest.mark.long
def test_memory_does_not_grow_with_the_recording(tmp_path, small_vocoder):
    peaks = []
    for seconds in (40, 400):
        soundfile.write(tmp_path / "in.wav", tones(seconds)[0].numpy(), RATE)
        program = (
            "import sys; from multidiff.cli.main import run; assert run(sys.argv[1:]) == 0;"
            "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
        )
        done = subprocess.run(
            [*MULTIDIFF[:1], "-c", program, "synth", tmp_path / "in.wav", "--steps", "1",
             "-o", tmp_path / "out.wav", "--model", small_vocoder],
            capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT, check=True,
        )  # fmt: skip
        peaks.append(int(done.stdout.splitlines()[-1]) / 1024)
        assert soundfile.info(tmp_path / "out.wav").frames == seconds * RATE
    assert peaks[1] - peaks[0] < 20  # MiB; the samples alone would take 30


# ------------------------------------------------------------------------- sample and eval


def test_kinds_of_samples_and_channels(tmp_path, capsys, vocoder, clip):
    """24 bits and floats hold the same sound as 16 bits, more exactly; channels are alike."""
    made = {}
    for subtype, channels in (("PCM_16", 1), ("PCM_24", 2), ("FLOAT", 3)):
        out = tmp_path / f"{subtype}.wav"
        options = ["--subtype", subtype, "--channels", channels, "--steps", 1]
        does(capsys, "synth", clip, "-o", out, *vocoder, *options)
        about = soundfile.info(out)
        assert (about.subtype, about.channels) == (subtype, channels)
        values, _ = soundfile.read(out, always_2d=True)
        assert (values == values[:, :1]).all()
        made[subtype] = values[:, 0]
    for subtype, bits in (("PCM_16", 16), ("PCM_24", 24)):
        error = np.abs(made[subtype] - made["FLOAT"]).max()
        assert 0 < error <= 2.0 ** (1 - bits)
    flac = ["synth", clip, "-o", tmp_path / "a.flac", *vocoder]
    assert "--subtype PCM_24" in complains(capsys, *flac, "--subtype", "FLOAT")
    assert "from 1 to 8" in complains(capsys, *flac, "--channels", 9)
    assert not (tmp_path / "a.flac").exists()


def test_floats_are_not_clipped(tmp_path, caplog):
    loud = np.array([0.5, 1.25, -2.0], np.float32)
    write_sound(tmp_path / "a.wav", iter([loud]), RATE, SoundFormat("FLOAT"))
    assert soundfile.read(tmp_path / "a.wav", dtype="float32")[0].tolist() == loud.tolist()
    assert not caplog.records
    write_sound(tmp_path / "b.wav", iter([loud]), RATE, SoundFormat("PCM_24"))
    assert abs(soundfile.read(tmp_path / "b.wav")[0]).max() <= 1 and "clipped" in caplog.text


def test_sample_reads_a_mel_several_ways(tmp_path, capsys, small_vocoder, clip):
    out = tmp_path / "out"
    reported = facts(capsys, "sample", small_vocoder, "--prompt", clip, "-n", 2, "-o", out)
    assert [Path(one["output"]).name for one in reported["outputs"]] == ["clip-0.wav", "clip-1.wav"]
    assert (out / "clip-0.wav").read_bytes() != (out / "clip-1.wav").read_bytes()
    assert "--prompt" in complains(capsys, "sample", small_vocoder, "-o", out)
    assert "-o" in complains(capsys, "sample", small_vocoder, "--prompt", clip)
    twice = complains(capsys, "sample", small_vocoder, *("--prompt", clip) * 2, "-o", out / "two")
    assert "would be written to" in twice and not (out / "two").exists()
    wrong = ["sample", small_vocoder, "--prompt", clip, "-o", out]
    assert "--guidance-scale" in complains(capsys, *wrong, "--guidance-scale", 2)
    assert "--sharp" in complains(capsys, *wrong, "--sharp", 2)


def test_eval_puts_griffin_lim_beside_the_model(tmp_path, capsys, small_vocoder, clip):
    items = tmp_path / "items"
    reported = facts(capsys, "eval", small_vocoder, clip.parent, "--per-item", items)
    assert reported["clips"] == 1
    systems = {one["system"]: one for one in reported["systems"]}
    assert any("Griffin-Lim" in name for name in systems) and len(systems) == 5
    assert systems.pop("recordings")["residual_kurtosis"] > 0
    assert all(METRICS.keys() <= one.keys() for one in systems.values())
    with (items / "items.csv").open(newline="") as file:
        rows = {row["system"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {*systems, "recordings"} and rows["recordings"]["pesq"] == ""
    for name, one in systems.items():
        assert float(rows[name]["log_mel_l1"]) == pytest.approx(one["log_mel_l1"], abs=1e-4)
    made = sorted(path.parent.name for path in items.rglob("0000-clip.wav"))
    assert len(made) == 4 and "Griffin-Lim-32-iterations" in made
    table = does(capsys, "eval", small_vocoder, clip.parent, "--steps", 1)
    assert "PESQ" in table and "Griffin-Lim" in table and "LPC kurtosis" in table


def test_eval_searches_plans_and_keeps_them(tmp_path, capsys, small_vocoder, clip):
    import shutil

    import multidiff

    folder = shutil.copytree(small_vocoder, tmp_path / "model")
    before = multidiff.load(folder).plan(steps=2)
    reported = does(capsys, "eval", folder, clip.parent, "--search-steps", "2")
    assert "2 evaluations" in reported
    assert multidiff.load(folder).plan(steps=2) != before
    assert multidiff.load(folder).plan(steps=2).num_steps == 2


def test_eval_refuses_what_holds_no_sound(tmp_path, capsys, small_vocoder):
    assert "no sound files" in complains(capsys, "eval", small_vocoder, tmp_path)
    for data in ([tmp_path], []):
        reported = complains(capsys, "eval", small_vocoder, *data, "--search-steps", "four")
        assert "--search-steps four" in reported


# -------------------------------------------------------------------------------- bad input


def bad_sounds(folder):
    """Files that are no sound to speak from, and what the line about them says."""
    wave = tones(0.5)[0].numpy()
    broken = wave.copy()
    broken[5000] = np.nan
    (folder / "empty.wav").touch()
    soundfile.write(folder / "hollow.wav", np.zeros(0), RATE)
    soundfile.write(folder / "truncated.flac", wave, RATE)
    whole = (folder / "truncated.flac").read_bytes()
    (folder / "truncated.flac").write_bytes(whole[:100])
    (folder / "text.wav").write_text("these are words, and no sound\n" * 40)
    soundfile.write(folder / "nan.wav", broken, RATE, subtype="FLOAT")
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(folder / "one.wav", np.ones(1) * 0.1, RATE)
    soundfile.write(folder / "integers.wav", wave * 32768, RATE, subtype="FLOAT")
    (folder / "words.txt").write_text("words")
    return {
        "empty.wav": "is not a sound file",
        "hollow.wav": "holds no samples",
        "truncated.flac": "truncated",
        "text.wav": "is not a sound file",
        "nan.wav": "not finite",
        "silent.wav": "is silent",
        "one.wav": "1 samples at 22050 Hz",
        "integers.wav": "full scale is 1",
        "words.txt": "neither sound",
        "missing.wav": "no such file",
    }


def test_sounds_that_cannot_be_used(tmp_path, capsys, vocoder):
    for name, reason in bad_sounds(tmp_path).items():
        out = tmp_path / "out" / "a.wav"
        reported = complains(capsys, "synth", tmp_path / name, "-o", out, *vocoder)
        assert name in reported and reason in reported
        assert not out.parent.exists() or not list(out.parent.iterdir()), name


def bad_mels():
    """Arrays that are no mel of the model, and what the line about them says."""
    mel = HIFIGAN.mel(speech(seconds=1.0)[:, :21760])[0].numpy()
    hundred = PRESETS["vocos-24k"].mel(speech(seconds=1.0)[:, :21760])[0].numpy()
    broken = mel.copy()
    broken[3, 3] = np.inf
    return {
        "bands": (hundred, "looks like"),
        "scale": (mel / np.log(10), "decimal"),
        "linear": (np.exp(mel), "without a logarithm"),
        "decibels": (8.68 * mel, "decibels"),
        "normalised": ((mel - mel.mean()) / mel.std(), "normalised"),
        "type": ((100 * mel).astype(np.int16), "int16"),
        "transposed": (mel.T, "transpose"),
        "nan": (broken, "not finite"),
        "flat": (mel[0], "shape"),
        "empty": (mel[:, :0], "shape"),
    }


def test_mels_that_cannot_be_used(tmp_path, capsys, vocoder):
    out = tmp_path / "out" / "a.wav"
    for name, (array, reason) in bad_mels().items():
        np.save(tmp_path / f"{name}.npy", array)
        reported = complains(capsys, "synth", tmp_path / f"{name}.npy", "-o", out, *vocoder)
        assert name in reported and reason in reported, reported
    np.savez(tmp_path / "rate.npz", mel=bad_mels()["nan"][0], sample_rate_hz=24000)
    assert "24000" in complains(capsys, "synth", tmp_path / "rate.npz", "-o", out, *vocoder)
    (tmp_path / "words.npy").write_text("words")
    assert "words.npy" in complains(capsys, "synth", tmp_path / "words.npy", "-o", out, *vocoder)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    assert "objects" in complains(capsys, "synth", tmp_path / "objects.npy", "-o", out, *vocoder)
    assert not out.exists()


def test_wrong_options(tmp_path, capsys, vocoder, clip):
    out = tmp_path / "out" / "a.wav"
    for options, reason in (
        (["--steps", "0"], "0"),
        (["--steps", "10000000"], "10000000"),
        (["--steps", "-3"], "-3"),
        (["--steps", "many"], "integer"),
        (["--sampler", "oiler"], "oiler"),
        (["--text", "and a file"], "not both"),
    ):
        reported = complains(capsys, "synth", clip, "-o", out, *vocoder, *options)
        assert reason in reported
    assert "no model 'spech'" in complains(capsys, "synth", clip, "-o", out, "--model", "spech")
    assert "INPUT" in complains(capsys, "synth", "-o", out, *vocoder)
    assert ".mp3" in complains(capsys, "synth", clip, "-o", tmp_path / "b.mp3", *vocoder)
    two = ["synth", clip, CLIP, *vocoder]
    assert "name a folder" in complains(capsys, *two, "-o", out)
    same = tmp_path / "other" / "clip.wav"
    same.parent.mkdir()
    same.write_bytes(clip.read_bytes())
    reported = complains(capsys, "synth", clip, same, "-o", tmp_path / "both", *vocoder)
    assert "as would" in reported
    assert not out.parent.exists() and not (tmp_path / "both").exists()


def test_places_that_cannot_be_written(tmp_path, capsys, vocoder, clip):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file" / "a.wav", Path("/proc/nowhere/a.wav"), Path("/dev/null/a.wav")):
        reported = complains(capsys, "synth", clip, "-o", out, *vocoder)
        assert str(out) in reported
    # Root may write everywhere, so the missing permission is simulated.
    fault = refused_by_system(tmp_path / "a.wav", PermissionError(13, "denied"))
    assert "permission denied" in str(fault)


@pytest.mark.long
def test_a_full_disk(tmp_path, small_vocoder):
    """Writing beyond a limit fails as on a full disk; nothing is left behind."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    sound = tmp_path / "long.npy"
    np.save(sound, HIFIGAN.mel(speech()[:, :102400])[0].numpy())
    out = tmp_path / "out" / "a.wav"
    reported = refused("synth", sound, "-o", out, "--model", small_vocoder, preexec_fn=limit)
    assert str(out) in reported
    assert not list(out.parent.iterdir())


def test_control_c_leaves_nothing_half_written(tmp_path, small_vocoder):
    soundfile.write(tmp_path / "long.wav", tones(120)[0].numpy(), RATE)
    process = start("synth", tmp_path / "long.wav", "-o", tmp_path / "out" / "a.wav",
                    "--model", small_vocoder, "--steps", "30")  # fmt: skip
    for _ in range(300):
        if (tmp_path / "out").exists():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors
    assert not list((tmp_path / "out").iterdir())


def test_a_checkpoint_of_lmnts_speaks(tmp_path, capsys, clip):
    """Its weights in its own format, converted, loaded and run on a stretch of speech."""
    wavegrad = pytest.importorskip("wavegrad.model")
    from wavegrad.params import params

    torch.manual_seed(0)
    torch.save(
        {"model": wavegrad.WaveGrad(params).state_dict(), "step": 1, "params": dict(params)},
        tmp_path / "theirs.pt",
    )
    reported = does(capsys, "convert", tmp_path / "theirs.pt", tmp_path / "model")
    assert "lmnt" in reported
    out = tmp_path / "a.wav"
    does(capsys, "synth", clip, "-o", out, "--model", tmp_path / "model", "--steps", 2)
    assert len(samples(out)) == RATE


def test_the_starter_recordings_are_there():
    assert len(list(STARTER.glob("*.flac"))) == 4

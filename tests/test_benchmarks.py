"""The benchmarks' own arithmetic, and that each part runs."""

import ast
import importlib
import json
import math
import time
from importlib.util import find_spec

import pytest
import torch
from program import ROOT

from benchmarks import referee
from benchmarks.__main__ import COMPONENTS, main
from benchmarks.digits_budget import spend
from benchmarks.joint_digits import text_floors
from benchmarks.mixture import HELD_OUT, TUNED
from benchmarks.referee_peers import peers
from benchmarks.timing import in_alternation, rows_of
from multidiff.core.gaussian.flow import RectifiedFlow
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.samplers import DDIM
from multidiff.core.gaussian.timesteps import TimestepSchedule
from multidiff.core.sample import sample


def test_every_function_is_called_equally_often():
    calls = []
    seconds = in_alternation({name: lambda n=name: calls.append(n) for name in "ab"}, rounds=4)
    assert calls == list("ab" + "ab" + "ba" + "ab" + "ba")
    assert all(len(taken) == 4 for taken in seconds.values())


def test_a_slower_function_has_a_larger_ratio():
    seconds = in_alternation({"fast": lambda: None, "slow": lambda: time.sleep(0.01)}, rounds=3)
    fast, slow = rows_of("part", "case", seconds, "fast")
    assert fast.ratio == 1 and slow.ratio > 2 and slow.median > 0.009


def test_ratios_are_of_the_same_round():
    fast, slow = rows_of("p", "c", {"x": [1.0, 2.0, 30.0], "y": [2.0, 4.0, 60.0]}, "x")
    assert fast.median == 2 and (slow.ratio, slow.lowest, slow.highest) == (2, 2, 60)
    absent = rows_of("p", "c", {"x": [1.0], "y": []}, "x")[1]
    assert absent.median is None and "not installed" in absent.cells()


@pytest.mark.slow
@pytest.mark.parametrize(
    "part",
    ["startup", *(pytest.param(p, marks=pytest.mark.long) for p in ("reverse-loop", "speak"))],
)
def test_a_part_runs(part):
    rows = importlib.import_module(f"benchmarks.{COMPONENTS[part]}").measure(1, 1)
    assert rows and all(row.median is None or row.median > 0 for row in rows)


@pytest.mark.parametrize("folder", ["benchmarks", "examples"])
def test_scripts_import_names_that_exist(folder):
    """Most are run by hand, and the type checker does not read them."""
    missing = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.ImportFrom) or node.level:
                continue
            if str(node.module).partition(".")[0] in ("multidiff", "benchmarks"):
                module = importlib.import_module(str(node.module))
                names = [one.name for one in node.names if not hasattr(module, one.name)]
                missing += [
                    f"{path.name}: {node.module}.{name}"
                    for name in names
                    if find_spec(f"{node.module}.{name}") is None
                ]
    assert not missing


TINY = {
    "unet-step": "--batch 1 --side 8 --latent-side 8",
    "image-loop": "--batch 1 --side 64 --steps 2",
    "load-memory": "--small 1",
    "decode-memory": "--small 1 --side 128 --tile 64",
    "text-step": "--batch 2 --length 8 --width 16 --layers 1",
    "text-loop": "--steps 2 --texts 2 --length 8 --width 16 --layers 1",
    "edit-step": "--batch 2 --length 8 --width 16 --layers 2",
    "network-share": "--samples 2 --steps 2",
    "training-share": "--batch 2",
    "forecast": "--steps 3",
    "precision": "--batch 1 --length 8 --width 64 --layers 1 --side 8 --channels 32 --steps 1",
    "token-digits": "--samples 20 --timed 2 --token-steps 1 --diffusion-steps 1",
    "digits-budget": "--data starter:digits --minutes 0.02 --samples 5 --our-steps 2 "
    "--their-steps 1",
}


@pytest.mark.parametrize(
    "part",
    [
        pytest.param("unet-step", marks=pytest.mark.long),
        "image-loop",
        pytest.param("decode-memory", marks=pytest.mark.long),  # four processes
        pytest.param("load-memory", marks=pytest.mark.long),  # four processes
        pytest.param("digits-budget", marks=pytest.mark.long),
        "token-digits",
        "text-step",
        "text-loop",
        "edit-step",
        "network-share",
        "training-share",
        "forecast",
        "precision",
    ],
)
def test_a_part_tells_our_ratio_to_its_peer(part, monkeypatch, capsys):
    words = [part, "--threads", "1", "--rounds", "1", "--json", *TINY[part].split()]
    monkeypatch.setattr("sys.argv", ["benchmarks", *words])
    main()
    rows = json.loads(capsys.readouterr().out)["rows"]
    ratios = {row["system"].split()[0]: row["ratio"] for row in reversed(rows)}
    assert {row["part"] for row in rows} == {part}
    assert ratios.pop("multidiff") > 0 and ratios and all(one > 0 for one in ratios.values() if one)


@pytest.mark.long  # three programs
def test_the_benchmark_of_large_data_compares_disk_with_memory(monkeypatch, capsys):
    words = "data --text 1 --kinds text --batches 3 --workers 0 --rounds 1 --json"
    monkeypatch.setattr("sys.argv", ["benchmarks", *words.split()])
    main()
    rows = {row["system"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["from memory"]["ratio"] == 1 and rows["from disk"]["ratio"] > 0
    assert 50 < rows["memory, all processes"]["median"] < 2000
    assert rows["second start, to the first batch"]["median"] > 0


def test_all_train_for_the_same_time():
    class Steps:
        def __init__(self, seconds):
            self.seconds, self.steps, self.ratios = seconds, 0, []

        def step(self, progress):
            began = time.process_time()
            while time.process_time() - began < self.seconds:
                pass
            self.steps += 1
            self.ratios.append(progress)

    quick, slow = Steps(0.005), Steps(0.02)
    spend({"quick": quick, "slow": slow}, 0.2)
    assert 5 <= slow.steps <= 10 and 20 <= quick.steps <= 40
    for one in (quick, slow):
        assert one.ratios[0] == 0 and one.ratios == sorted(one.ratios) and one.ratios[-1] < 1


@pytest.mark.parametrize("words", ["--sides 3", "no-part", "startup --rounds 0", "--side 8"])
def test_options_of_no_part_are_refused(words, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmarks", *words.split()])
    with pytest.raises(SystemExit):
        main()
    assert words.split()[-1] in capsys.readouterr().err


@pytest.mark.parametrize("path", ["vp", "flow", "edm"])
def test_the_referee_measures_the_default_sampler(path):
    """W1 at 8 evaluations as docs/benchmarks.md has it, and states that stay on the path."""
    for law, wanted in ((TUNED, 0.0048), (HELD_OUT, 0.0109)):
        assert referee.distance(law, referee.ours(path), 8) == pytest.approx(wanted, rel=0.05)
    assert referee.off_path(referee.ours(path)) < 1e-12


def test_the_referee_knows_a_peer_by_its_figures():
    """Euler of diffusers on the flow is DDIM on its five times from 1 to 0.001."""
    pytest.importorskip("diffusers")
    euler = next(walk for _, name, walk in peers("flow") if name == "Euler, shift 1")
    process = GaussianProcess(RectifiedFlow(), "x0")
    times = TimestepSchedule(5, lambda _: torch.linspace(1, 0.001, 5, dtype=torch.float64))

    def same(network, noise, evaluations):
        def denoiser(xt, level, condition=None):
            return network(xt, level.alpha, level.sigma)

        return sample(process, denoiser, DDIM(), noise.shape, times, start=noise)

    found = [referee.distance(TUNED, walk, 5) for walk in (euler, same)]
    assert found[0] == pytest.approx(found[1], abs=1e-4)
    ddim = next(walk for _, name, walk in peers("vp") if name == "DDIM, linspace")
    assert referee.off_path(ddim) > 0.1  # its strides, see docs/samplers.md


def test_the_least_nats_of_the_texts_of_digits():
    rows = [{"digit": str(digit), "voice": str(v)} for digit in range(10) for v in range(1, 7)]
    found = text_floors(rows)
    # "six" is English and French; voices are named in a quarter of the texts.
    alike, six = [0.2, 0.1, 0.1, 0.1, 0.25, 0.25], [0.3, 0.1, 0.1, 0.25, 0.25]
    entropy = -sum(p * math.log(p) * n for odds, n in ((alike, 0.9), (six, 0.1)) for p in odds)
    assert found["text|audio"] == pytest.approx(entropy, abs=1e-3)
    assert found["text|image"] == pytest.approx(entropy + math.log(6) / 4, abs=1e-3)
    assert found["text"] == pytest.approx(entropy + math.log(6) / 4 + math.log(10), abs=1e-3)

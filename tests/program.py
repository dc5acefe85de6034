"""Running the command line as users do: in a process of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "recipes"
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "ACCELERATE_USE_CPU": "true",
}
MULTIDIFF = [sys.executable, "-m", "multidiff.cli.main"]
# accelerate starts several processes only where it believes in several GPUs; the environment
# above has them compute on the CPU all the same.
LAUNCH = [
    sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
    "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
    "--main_process_port", "0", "-m", "multidiff.cli.main",
]  # fmt: skip


def run(*arguments, program=MULTIDIFF, **options):
    """The finished process, its output as text."""
    command = [*program, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT, timeout=300, **options
    )


def _heed_signals():
    """Undo what background jobs of a shell (Ctrl-C) and nohup (SIGHUP) ignore, and pass on."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start(*arguments, program=MULTIDIFF, **options):
    """The process, running."""
    return subprocess.Popen(
        [*program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        cwd=ROOT,
        preexec_fn=_heed_signals,
        **options,
    )


def here(*arguments):
    """Run a command that succeeds in this process, where its start costs nothing."""
    from multidiff.cli.main import run as run_here

    assert run_here([str(one) for one in arguments]) == 0


def with_overrides(words, *overrides):
    """Words of a command with overrides, each in the place of an earlier one of the same key."""
    keys = {override.partition("=")[0] for override in overrides}
    return [*(one for one in words if str(one).partition("=")[0] not in keys), *overrides]


def refused(*arguments, **options):
    """The one line with which a command ends that cannot use what it was given."""
    done = run(*arguments, **options)
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    (line,) = [one for one in done.stderr.splitlines() if one.startswith("multidiff: ")]
    return line


def trained(folder, name, *overrides, steps=6):
    """The folder of a model that a smoke recipe made in a few steps, in this process."""
    recipe = RECIPES / "smoke" / f"{name}.yaml"
    words = [f"trainer.{key}={steps}" for key in ("steps", "save_every", "validate_every")]
    here("train", recipe, *words, *overrides, "--out", folder)
    return folder / "model"

"""``multidiff doctor``: installed packages, devices, and whether the shipped models load."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import multidiff
from multidiff.utils.packages import METRICS_EXTRA, TTS_EXTRA, trouble, version_of
from multidiff.utils.report import Report

# Distribution -> its module. tests/test_doctor.py compares it with pyproject.toml.
NEEDED = {
    "torch": "torch",
    "accelerate": "accelerate",
    "datasets": "datasets",
    "huggingface_hub": "huggingface_hub",
    "jaxtyping": "jaxtyping",
    "librosa": "librosa.filters",
    "numpy": "numpy",
    "pillow": "PIL.Image",
    "pydantic": "pydantic",
    "pystoi": "pystoi",
    "rich": "rich",
    "ruamel.yaml": "ruamel.yaml",
    "sacrebleu": "sacrebleu",
    "safetensors": "safetensors.torch",
    "sentencepiece": "sentencepiece",
    "soundfile": "soundfile",
    "soxr": "soxr",
    "tensorboard": "torch.utils.tensorboard",
    "transformers": "transformers",
    "typer": "typer",
    "xxhash": "xxhash",
}
# (distribution, module, feature, how to install it)
OPTIONAL = (
    ("pesq", "pesq", "PESQ in eval of speech", METRICS_EXTRA),
    ("torchvision", "torchvision", "FID by Inception, with torch-fidelity", METRICS_EXTRA),
    ("torch-fidelity", "torch_fidelity", "FID by Inception in eval of images", METRICS_EXTRA),
    ("gruut", "gruut", "synth --text", TTS_EXTRA),
)
# Square matrices whose product is timed to see how fast bfloat16 is: 0.3 GFLOP.
TIMED_SIZE, TIMED_RUNS = 512, 3


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        name: package, program, device or model.
        about: its version or properties; "missing" or "broken" if it is.
        fault: what is wrong with it and how to fix it; empty if it works.
        note: same as ``fault``, if everything else works without it.
    """

    name: str
    about: str
    fault: str = ""
    note: str = ""


def examine() -> Report:
    """Check packages, devices and shipped models.

    Returns:
        The findings; its faults are what multidiff cannot work without.
    """
    sections = {"packages": list(packages()), "optional": list(optional_parts())}
    if not any(one.fault for one in sections["packages"] if one.name == "torch"):
        sections |= {"devices": list(devices()), "models": list(shipped_models())}
    head = f"multidiff {multidiff.__version__}, Python {platform.python_version()}"
    lines = [f"{head}, {platform.platform()}", *system_notes()]
    facts: dict[str, Any] = {
        "multidiff": multidiff.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "notes": system_notes(),
    }
    if "devices" in sections:
        facts |= {"threads": thread_counts()[0], "cores": thread_counts()[1]}
    for section, found in sections.items():
        lines += ["", section, *_rows(found)]
        facts[section] = [vars(one) for one in found]
    faults = [one.fault for found in sections.values() for one in found if one.fault]
    lines += ["", "something required is broken:" if faults else "everything required works"]
    return Report(lines, facts, faults)


def _rows(found: list[Finding]) -> list[str]:
    width = max((len(one.name) for one in found), default=0) + 2
    return [f"  {one.name:<{width}}{one.about}{one.note and f'; {one.note}'}" for one in found]


def system_notes() -> list[str]:
    """Return limitations of this operating system, a line each."""
    if importlib.util.find_spec("fcntl") is None:
        return ["this system has no file locks: do not let two runs write to one folder"]
    return []


def packages() -> Iterator[Finding]:
    """Import every package that multidiff needs and compare its version with the bounds."""
    bounds = _bounds()
    for package, module in NEEDED.items():
        error = _import_error(module)
        found = version_of(package)
        if error is not None:
            about = "broken" if found else "missing"
            yield Finding(package, about, fault=trouble(package, "multidiff", error))
        elif found and package in bounds and not bounds[package].contains(found, prereleases=True):
            fix = f'pip install "{package}{bounds[package]}"'
            fault = f"multidiff needs {package}{bounds[package]}, but {found} is installed: {fix}"
            yield Finding(package, found, fault=fault)
        else:
            yield Finding(package, found or "version unknown")


def _bounds() -> dict[str, Any]:
    """Return the version range of each needed package; empty if not installed by pip."""
    try:
        from packaging.requirements import Requirement

        stated = [Requirement(text) for text in metadata.requires("multidiff") or ()]
    except (ImportError, metadata.PackageNotFoundError):
        return {}
    return {one.name: one.specifier for one in stated if one.marker is None}


def optional_parts() -> Iterator[Finding]:
    """Look for packages and programs that only some commands use."""
    for name, module, gives, fix in OPTIONAL:
        error = _import_error(module)
        if error is None:
            yield Finding(name, version_of(name) or "version unknown")
        elif version_of(name) is None:
            yield Finding(name, "missing", note=f"for {gives}: {fix}")
        else:
            yield Finding(name, "broken", note=trouble(name, gives, error, fix))


def _import_error(module: str) -> Exception | None:
    try:
        importlib.import_module(module)
    except Exception as error:  # foreign code may raise anything
        return error
    return None


def devices() -> Iterator[Finding]:
    """Describe the CPU and every accelerator: threads, memory, speed of bfloat16."""
    import torch

    threads, cores = thread_counts()
    kernels = torch.backends.cpu.get_cpu_capability()
    about = f"threads of torch: {threads}, cores: {cores}, {kernels}, {bfloat16_speed('cpu')}"
    yield Finding("cpu", about)
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        memory = f"{card.total_memory / 2**30:.0f} GiB"
        speed = bfloat16_speed(f"cuda:{index}")
        yield Finding(f"cuda:{index}", f"{card.name}, {memory}, {speed}")
    if torch.backends.mps.is_available():
        yield Finding("mps", f"Apple's GPU, no float64, {bfloat16_speed('mps')}")
    if not torch.cuda.is_available() and torch.version.cuda and sys.platform == "linux":
        unused = f"torch is built for CUDA {torch.version.cuda}, but no device or driver is found"
        yield Finding("cuda", unused)


def thread_counts() -> tuple[int, int]:
    """Return the number of torch's threads, and of the cores this process may use."""
    import torch

    if hasattr(os, "sched_getaffinity"):
        return torch.get_num_threads(), len(os.sched_getaffinity(0))
    return torch.get_num_threads(), os.cpu_count() or 1


def bfloat16_speed(device: str) -> str:
    """Time a matrix product in float32 and bfloat16 and report which is faster."""
    import torch

    try:
        full, half = (_seconds(device, dtype) for dtype in (torch.float32, torch.bfloat16))
    except RuntimeError as error:
        return f"unusable: {str(error).splitlines()[0]}"
    verdict = "worth it" if full > 1.2 * half else "not worth it"
    return f"bfloat16 {verdict} ({full / half:.1f} times the speed of float32)"


def _seconds(device: str, dtype: Any) -> float:
    import torch

    one = torch.ones(TIMED_SIZE, TIMED_SIZE, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(TIMED_RUNS + 1):  # the first one also initialises the libraries
        began = time.perf_counter()
        float((one @ one)[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - began)
    return best


def shipped_models() -> Iterator[Finding]:
    """Load every model that comes with the package."""
    from multidiff.models.loading import load, shipped

    names = list(shipped())
    if not names:
        fault = "the package contains no models: install it again, from a whole source tree"
        yield Finding("models", "missing", fault=fault)
    for name in names:
        began = time.perf_counter()
        try:
            model = load(name)
        except Exception as error:  # whatever it is, the other models are still checked
            reason = " ".join(str(error).split()) or type(error).__name__
            fault = f"model {name} does not load ({reason}): install multidiff again"
            yield Finding(name, "broken", fault=fault)
            continue
        size = sum(one.numel() for one in model.parameters()) / 1e6
        seconds = time.perf_counter() - began
        yield Finding(name, f"loads in {seconds:.1f} s, {size:.1f} million parameters")

"""Peak memory and time of loading a float16 folder in the shape of Stable Diffusion 1.5.

The folder, of 2.0 GiB, has random weights and is written to a temporary folder, which is removed
afterwards. With ``xl`` it is one of 6.5 GiB in bfloat16 in the shape of version XL, which then also
makes one forward pass of its UNet. Each loading runs in its own process, which holds torch and the
libraries before. Ratios are to the size of the files; float32 takes twice that.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.decode_memory import MIB, peak
from benchmarks.timing import Row, counted, installed, rows_of

PART = "load-memory"
RECIPES = Path(__file__).parent.parent / "recipes" / "image"
XL, FIRST = RECIPES / "sdxl.yaml", RECIPES / "stable_diffusion.yaml"
LATENTS = 64  # height and width of the forward pass, of an image of 512x512
BLOCK = 1 << 20  # number of random weights, which are repeated
REFERENCE = "size of the files"
# Changes that make the recipe tiny.
SMALL = (
    *("model.denoiser.channels=[32,32]", "model.denoiser.attention=[cross,none]"),
    *("model.denoiser.heads=[1,1]", "model.denoiser.condition_width=64"),
    *("model.domain.autoencoder.channels=[32,32]", "model.domain.text_encoder.vocabulary=8"),
    *("model.domain.text_encoder.width=64", "model.domain.text_encoder.feed_forward=64"),
    *("model.domain.text_encoder.layers=1", "model.domain.text_encoder.heads=1"),
)


def measure(threads: int, rounds: int, *, small: int = 0, xl: int = 0) -> list[Row]:
    """Measure loading, for a third of the rounds.

    Args:
        threads: number of CPU threads.
        rounds: number of rounds of the other parts; writing the folder takes half a minute.
        small: 1 uses a tiny model instead, to try this out.
        xl: 1 uses version XL in bfloat16, which takes 8 GiB of memory and 14 GiB of disk.
    """
    kinds = ("bfloat16",) if xl else ("float16", "float32")
    systems = {f"multidiff in {kind}": ["ours", kind] for kind in kinds}
    if installed("diffusers") and not xl:
        systems |= {f"diffusers in {kind}": ["theirs", kind] for kind in ("float16", "float32")}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in systems}
    with TemporaryDirectory() as root:
        folder = Path(root) / "folder"
        size = _write(folder, small, xl)
        for number in range(max(rounds // 3, 1)):
            for name in list(systems)[:: -1 if number % 2 else 1]:
                found[name].append(_in_a_process([*systems[name], folder, threads]))
    name = "XL in bfloat16" if xl else "1.5 in float16"
    case = f"Stable Diffusion {name}, {counted(threads)}"
    added = {name: [one["added"] for one in ones] for name, ones in found.items()}
    rows = rows_of(PART, case, {REFERENCE: [size], **added}, REFERENCE, "MiB, peak")
    first = next(iter(systems))
    seconds = {name: [one["seconds"] for one in ones] for name, ones in found.items()}
    forward = [one["forward"] for one in found[first] if "forward" in one]
    rows += rows_of(PART, f"{case}, UNet of 512x512", {first: forward}, first, "s") if xl else []
    return rows + rows_of(PART, case, seconds, first, "s")


def _write(folder: Path, small: int, xl: int) -> float:
    """Write the folder, and return the size of its weights in MiB."""
    import torch

    from multidiff.config.recipe import to_yaml
    from multidiff.image.stable_diffusion.folder_writing import write_folder
    from multidiff.models.loading import check_recipe, outline
    from multidiff.models.weights import Conversion

    model = check_recipe(XL if xl else FIRST, SMALL if small else ())["model"].resolved
    del model["domain"]["tokenizer"]["folder"]
    model["denoiser"]["channels_last"] = False
    empty = outline(Conversion(to_yaml({"model": model}), {}, ""), folder)
    dtype, total = torch.bfloat16 if xl else torch.float16, 0
    block = (0.02 * torch.randn(BLOCK, generator=torch.Generator().manual_seed(0))).to(dtype)
    tensors = {}
    buffer = Path(f"{folder}.weights")  # memory-mapped, since writing takes as much memory again
    count = sum(one.numel() for one in empty.state_dict().values())
    values = torch.from_file(str(buffer), True, count, dtype=dtype)
    for name, one in empty.state_dict().items():
        tensors[name] = values[total : total + one.numel()].view(one.shape)
        total += one.numel()
    for part in values.split(BLOCK):
        part.copy_(block[: len(part)])
    texts = {"vocab.json": "{}", "merges.txt": "#version: 0.2\n"}
    write_folder(model, tensors, texts, folder)
    buffer.unlink()
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / MIB


def _in_a_process(words: list[Any]) -> dict[str, float]:
    program = [sys.executable, "-m", "benchmarks.load_memory", *map(str, words)]
    done = subprocess.run(program, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _load(who: str, kind: str, folder: str, threads: int) -> dict[str, float]:
    """Load in one process and return its figures."""
    import torch
    from transformers import CLIPTextModel, CLIPTokenizer

    torch.set_num_threads(threads)
    loads: Any = CLIPTextModel, CLIPTokenizer  # imported before memory is measured
    if who == "ours":
        from multidiff import load
        from multidiff.image.diffusion.model import ImageDiffusion
        from multidiff.image.stable_diffusion import conversion

        loads = load, ImageDiffusion, conversion
        before, began = peak(), time.perf_counter()
        held: Any = load(folder, dtype=kind)
    else:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        loads = [UNet2DConditionModel, AutoencoderKL, CLIPTextModel]
        before, began = peak(), time.perf_counter()
        held = [
            one.from_pretrained(folder, subfolder=part, torch_dtype=getattr(torch, kind))
            for one, part in zip(loads, ("unet", "vae", "text_encoder"), strict=True)
        ]
        for part in held:  # memory that is mapped counts when it is used
            sum(float(one.detach().sum()) for one in part.parameters())
    found = {"seconds": time.perf_counter() - began, "added": (peak() - before) / MIB}
    assert held and loads
    return {**found, "forward": _forward(held)} if kind == "bfloat16" else found


def _forward(model: Any) -> float:
    """Return the seconds of one forward pass of version XL's UNet.

    Raises:
        RuntimeError: if its output is not finite.
    """
    import torch

    words, pooled = torch.ones(1, 77, model.denoiser.condition_width), torch.ones(1, 1280)
    sizes = torch.tensor([[512.0, 512.0, 0.0, 0.0, 512.0, 512.0]])
    level = model.process.schedule.at(torch.tensor([0.5]))
    began = time.perf_counter()
    with torch.no_grad():
        state = torch.ones(1, 4, LATENTS, LATENTS)
        made = model.denoiser(state, level, {"words": words, "pooled": pooled, "sizes": sizes})
    if not bool(made.isfinite().all()):
        raise RuntimeError("the UNet's output is not finite")
    return time.perf_counter() - began


if __name__ == "__main__":
    print(json.dumps(_load(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))))

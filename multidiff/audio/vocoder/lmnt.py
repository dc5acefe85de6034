"""Conversion of checkpoints of lmnt-com/wavegrad.

The tensors are equal except for their names and a height of 1. The file does not state
the mel: the project's own code makes ``lmnt-wavegrad-22k`` mels, but its published 24 kHz
weights were trained on librosa's (issue 7 there), ``lmnt-wavegrad-24k-pretrained``. The sample
rate among the file's parameters, or the default if it has none, decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from multidiff.models.weights import Conversion, read_pickle
from multidiff.utils.errors import InputError

MELS = {22050: "lmnt-wavegrad-22k", 24000: "lmnt-wavegrad-24k-pretrained"}
KNOWN_BY = "downsample.1.residual_dense.weight"

Name = str | Callable[[re.Match[str]], str]
NAMES: tuple[tuple[str, Name], ...] = (
    (r"^first_conv\.", "read_mel."),
    (r"^last_conv\.", "write."),
    (r"^downsample\.0\.", "read."),
    (r"^downsample\.(\d)\.residual_dense\.", lambda m: f"down.{int(m[1]) - 1}.residual."),
    (r"^downsample\.(\d)\.conv\.", lambda m: f"down.{int(m[1]) - 1}.layers."),
    (r"^film\.(\d)\.input_conv\.", r"film.\1.read."),
    (r"^film\.(\d)\.output_conv\.", r"film.\1.write."),
    (r"^upsample\.(\d)\.block1\.", r"up.\1.residual."),
    (r"^upsample\.(\d)\.block2\.0\.", r"up.\1.first.taps."),
    (r"^upsample\.(\d)\.block2\.1\.", r"up.\1.layers.0."),
    (r"^upsample\.(\d)\.block3\.(\d)\.", lambda m: f"up.{m[1]}.layers.{int(m[2]) + 1}."),
)

RECIPE = """\
# A checkpoint of lmnt-com/wavegrad.
model:
  use: Vocoder
  domain: {{use: WaveformDomain, mel: {mel}}}
  process:
    use: GaussianProcess
    schedule: {{use: BetaSchedule.linear, steps: 1000, first: 1.0e-6, last: 0.01}}
    prediction: epsilon
    objective: {{use: SimpleLoss, distance: l1}}
  denoiser: {{use: WaveGrad, mel: {mel}, embedding_scale: 1.0}}
  sampling: {{steps: 50, log_snr_min: -5.0, log_snr_max: 13.0, sampler: ddpm}}
"""


def _content(path: Path) -> tuple[Mapping[str, Tensor], Mapping[str, Any]] | None:
    """Return the tensors and the parameters beside them; None for other kinds of files."""
    content = read_pickle(path)
    state = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or KNOWN_BY not in state:
        return None
    parameters = content.get("params", {})
    tensors = {str(name): one for name, one in state.items() if isinstance(one, Tensor)}
    return tensors, parameters if isinstance(parameters, Mapping) else {}


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors to our names, convolutions with a height of 1."""
    found = {}
    for name, tensor in state.items():
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        found[f"denoiser.{name}"] = tensor[:, :, None] if tensor.ndim == 3 else tensor
    return found


def knows(source: Path) -> bool:
    """Return whether a file is such a checkpoint.

    Raises:
        InputError: if it holds more than tensors and numbers.
    """
    return _content(source) is not None


def convert(source: Path) -> Conversion:
    """Convert a checkpoint.

    Raises:
        InputError: if the file is of another kind, or no mel preset has its sample rate.
    """
    content = _content(source)
    if content is None:
        raise InputError(f"{source}: is not a checkpoint of lmnt-com/wavegrad")
    state, parameters = content
    rate = parameters.get("sample_rate", 22050)
    if not isinstance(rate, int | float) or rate not in MELS:
        raise InputError(
            f"{source}: its sample rate {rate} is not supported; expected one of {sorted(MELS)}"
        )
    about = f"lmnt WaveGrad reading {MELS[rate]} mels"
    return Conversion(RECIPE.format(mel=MELS[rate]), renamed(state), about)

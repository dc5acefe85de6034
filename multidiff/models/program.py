"""Networks as programs of torch.export, for runtimes without this package.

A sampler is a few lines in any language; the network is what must be carried over. It is exported
with the parts of its noise level as inputs, at any batch size and length, and the written file is
compared with the model on inputs of another size.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from multidiff.utils.errors import InputError
from multidiff.utils.files import atomic_write
from multidiff.utils.report import Report

ENDING = ".pt2"
FACTS = "multidiff.json"
# Largest difference from the model, relative to the largest output.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Program:
    """A network to export.

    Attributes:
        module: network that takes tensors by name.
        inputs: inputs by name, of a size above 1 wherever it may vary.
        others: inputs of another size, to compare the written program on.
        shapes: dynamic dimensions of each input, as torch.export takes them.
        facts: what a caller must know, written beside the program.
    """

    module: nn.Module
    inputs: Mapping[str, Tensor]
    others: Mapping[str, Tensor]
    shapes: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)


def export_program(model: Any, path: Path) -> Report:
    """Write a model's network as a program of torch.export, and compare it with the model.

    Args:
        model: model with a method ``program``.
        path: file to write, ``.pt2``.

    Raises:
        InputError: if the model has no program, the file has another ending, or the program's
            output differs from the model's.
    """
    if path.suffix != ENDING:
        raise InputError(f"{path}: a program is written as {ENDING}")
    make = getattr(model, "program", None)
    if make is None:
        raise InputError(f"a {type(model).__name__} has no program to export; a Vocoder has")
    program: Program = make()
    module = program.module.eval()
    with torch.no_grad():
        exported = torch.export.export(
            module, (), dict(program.inputs), dynamic_shapes=dict(program.shapes)
        )
    facts = {"inputs": list(program.inputs), **program.facts}
    with atomic_write(path) as partial:
        torch.export.save(exported, partial, extra_files={FACTS: json.dumps(facts)})
        error = _error_of(partial, module, [program.inputs, program.others])
        if not error <= TOLERANCE:  # also if it is NaN
            raise InputError(
                f"{path}: the program's output differs from the model's by {error:.1g} of its "
                "largest value; nothing is written"
            )
    line = f"{path}: inputs {', '.join(program.inputs)}; within {error:.1g} of the model"
    return Report([line], {"output": str(path), "error": error, **facts})


@torch.no_grad()
def _error_of(path: Path, module: nn.Module, cases: Sequence[Mapping[str, Tensor]]) -> float:
    """Return the largest relative difference of a written program from its module."""
    written, errors = torch.export.load(path).module(), []
    for inputs in cases:
        wanted = module(**inputs)
        largest = wanted.abs().max().clamp(min=torch.finfo(wanted.dtype).tiny)
        errors.append(float((written(**inputs) - wanted).abs().max() / largest))
    return max(errors, key=lambda error: (math.isnan(error), error))

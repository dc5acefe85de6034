"""Bounds on the likelihood of records: joint, conditional and marginal.

For media A given media B, with the rest hidden and L tokens in A together:

    -log p(x_A | x_B) <= E_l  L / l  E sum over masked i  -log p(x_i | visible tokens)

with ``l`` uniform in 1 .. L and ``l`` of the tokens of A masked, all choices alike (Uria et al.
2014; LLaDA's estimator, Nie et al. 2025). The gap of each bound is another one, so a difference
of two bounds is no mutual information.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from multidiff.core.discrete.absorbing import lowest
from multidiff.core.joint.level import Held, JointLevel
from multidiff.core.joint.process import JointProcess
from multidiff.core.protocols import Denoiser
from multidiff.core.random import Rng, generators, uniform
from multidiff.joint.domain import MISSING
from multidiff.joint.model import JointModel
from multidiff.joint.records import Records
from multidiff.utils.errors import InputError
from multidiff.utils.report import Report, checked_counts, table

AT_ONCE = 32


@torch.no_grad()
def subset_nelbo(
    process: JointProcess,
    denoiser: Denoiser,
    x0: Mapping[str, Int[Tensor, "batch length"]],
    make: Sequence[str],
    given: Sequence[str] = (),
    *,
    num_times: int = 32,
    rng: Rng | None = None,
) -> Float[Tensor, "batch times"]:
    """Estimate the bound of some media given others, in nats for each draw of the masks.

    The draws of each record are stratified over the number of masks.

    Args:
        process: process of masked parts that the denoiser was trained on.
        denoiser: the network.
        x0: tokens of all media; those of hidden ones are not read.
        make: media that are bounded together.
        given: media that are given; the rest is hidden.
        num_times: number of draws for each record.
        rng: source of the draws.

    Raises:
        ValueError: if there is nothing to bound, or a medium is given too.
    """
    if not make or {*make} & {*given}:
        raise ValueError(f"make {[*make]}, given {[*given]}: name one or more, and none twice")
    parts: Any = process.parts
    lengths = [x0[name].shape[1] for name in make]
    total, batch, device = sum(lengths), len(x0[make[0]]), x0[make[0]].device
    level = JointLevel({
        name: Held(0.0 if name in given else 1.0).level(one).to(device).expand(batch)
        for name, one in parts.items()
    })  # fmt: skip
    target = torch.cat([x0[name] for name in make], dim=1)
    everywhere = torch.ones_like(target, dtype=torch.bool)
    starts = uniform((batch,), rng).to(device)
    found = []
    for number in range(num_times):
        position = (starts + number / num_times) % 1
        counts = torch.ceil((1 - position) * total).clamp(min=1)
        masked = lowest(uniform(target.shape, rng).to(device), everywhere, counts.long())
        state = {
            name: x0[name] if name in given else torch.full_like(x0[name], parts[name].size)
            for name in parts
        }
        for name, own in zip(make, masked.split(lengths, dim=1), strict=True):
            state[name] = x0[name].masked_fill(own, parts[name].size)
        output: Any = denoiser(state, level)  # pyright: ignore[reportArgumentType]
        errors = [
            F.cross_entropy(output[name].float().transpose(1, 2), x0[name], reduction="none")
            for name in make
        ]
        sums = (torch.cat(errors, dim=1) * masked).sum(dim=1)
        found.append(sums.double() * total / counts)
    return torch.stack(found, dim=1)


def measure(
    model: JointModel,
    data: str | None,
    folder: Path,
    *,
    seed: int,
    num: int = 200,
    looks: int = 16,
) -> Report:
    """Bound the likelihood of records: joint, marginals and all conditionals of one medium.

    Args:
        model: the model.
        data: held-out records, whose columns are named as the model's media.
        folder: folder of the model, unused.
        seed: random seed of the first record's masks; record ``i`` uses ``seed + i``.
        num: largest number of records.
        looks: number of evaluations for each record and bound.

    Raises:
        InputError: if there are no records, or none has all media of a bound.
    """
    checked_counts({"num": num, "looks": looks})
    if data is None:
        raise InputError("DATA: is missing; name a table of held-out records")
    records = Records(data, among=tuple(model.domain))
    tokens = _tokens(model, records, min(num, len(records)))
    figures, rows = {}, [["media", "given", "records", "nats", "+-", "nats a token"]]
    for make, given in _bounds([*model.domain]):
        there = torch.stack([tokens[n][:, 0] != MISSING for n in (*make, *given)]).all(dim=0)
        if not bool(there.any()):
            continue
        each = _bounded(model, tokens, there.nonzero()[:, 0], make, given, looks, seed)
        mean, count = float(each.mean()), len(each)
        error = float(each.std()) / math.sqrt(count) if count > 1 else math.nan
        length = sum(model.domain[name].length for name in make)
        name = f"{'+'.join(make)}|{'+'.join(given)}" if given else "+".join(make)
        figures[name] = {"nats": round(mean, 4), "error": round(error, 4), "records": count}
        rows.append([
            " + ".join(make), " + ".join(given) or "-", str(count), f"{mean:.2f}",
            f"{error:.2f}", f"{mean / length:.3f}",
        ])  # fmt: skip
    if not figures:
        raise InputError(f"{data}: no record has a medium that can be used")
    note = "upper bounds, whose gaps differ: their differences are not mutual information"
    return Report([*table(rows), note], {"bounds": figures})


def _bounds(media: Sequence[str]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Yield media and what is given for each bound: all, then each given every choice of others."""
    yield tuple(media), ()
    for name in media:
        others = [one for one in media if one != name]
        for size in range(len(media)):
            yield from (((name,), given) for given in itertools.combinations(others, size))


def _tokens(model: JointModel, records: Records, count: int) -> dict[str, Tensor]:
    found = {}
    for name in model.domain:
        there = name in records.media
        cells = [records.cell(index, name) if there else None for index in range(count)]
        found[name] = model.domain.tokens(name, cells).to(model.device)
    return found


def _bounded(
    model: JointModel,
    tokens: Mapping[str, Tensor],
    rows: Tensor,
    make: Sequence[str],
    given: Sequence[str],
    looks: int,
    seed: int,
) -> Float[Tensor, " rows"]:
    """Return the bound of each of some records."""
    found = []
    for some in rows.split(AT_ONCE):
        x0 = {name: one[some] for name, one in tokens.items()}
        rng = generators([seed + row for row in some.tolist()])
        draws = subset_nelbo(
            model.process, model.denoiser, x0, make, given, num_times=looks, rng=rng
        )
        found.append(draws.mean(dim=1).cpu())
    return torch.cat(found)

"""``python -m benchmarks.threads``: load, build layers, train and sample in many threads at once.

Each kind of work is first done alone. Then threads repeat it for the given time, all in
one process, and every result must equal the first one to the bit. One thread draws from the
process's default generator, as code outside the package does: nothing else may advance it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import multidiff as md
from multidiff.core.protocols import Encoded
from multidiff.nn.embeddings import LogSNREmbedding

Work = Callable[[], list[Tensor]]


class Features(md.Domain, nn.Module):
    """States from a frozen encoder whose output depends on its train or eval mode."""

    def __init__(self):
        nn.Module.__init__(self)
        layers = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.encoder = layers.eval().requires_grad_(False)

    def encode(self, batch: Any, rng: Any) -> Encoded:
        """Return the features of a batch."""
        return Encoded(self.encoder(batch["x"]))


class Network(nn.Module):
    """A small network with dropout."""

    def __init__(self):
        super().__init__()
        self.level, self.read = LogSNREmbedding(32), nn.Linear(4, 32)
        self.drop, self.write = nn.Dropout(0.3), nn.Linear(32, 4)

    def forward(self, xt: Tensor, level: Any, condition: Any = None) -> Tensor:
        """Return the prediction."""
        return self.write(self.drop(torch.relu(self.read(xt) + self.level(level))))


@dataclass
class Found:
    """Result of all threads.

    Attributes:
        done: number of runs of each kind of work.
        faults: errors, a line each.
    """

    done: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def layers() -> Iterator[list[Tensor]]:
    """Build layers from the process's default generator, one after the other."""
    while True:
        yield [*nn.Sequential(nn.Linear(8, 8), nn.Conv1d(4, 4, 3), nn.Embedding(5, 3)).parameters()]


def loaded(name: str) -> list[Tensor]:
    """Return the weights and buffers of a shipped model."""
    model = md.load(name)
    return [*model.parameters(), *model.buffers()]


def trained(task: Callable[[], nn.Module], precision: Any) -> list[Tensor]:
    """Return the weights after some steps."""
    rng = torch.Generator().manual_seed(1)
    data = [{"x": torch.randn(32, 8, generator=rng)}]
    module = task()
    md.Trainer(steps=4, validate_every=2, precision=precision, ema_decay=0.5).fit(
        module, data, data
    )
    return [*module.parameters(), *module.buffers()]


def works() -> dict[str, Work]:
    """Return each kind of work except the building of layers."""
    from multidiff.core.draws import DrawsFrom
    from multidiff.text.request import TextRequest

    digits, restaurant = md.load("digits"), md.load("restaurant")
    process = md.GaussianProcess(md.BetaSchedule.cosine(100), prediction="v")

    def task() -> nn.Module:
        with DrawsFrom(torch.Generator().manual_seed(7)):
            return md.DiffusionTask(Features(), process, Network())

    def text() -> list[Tensor]:
        (made,) = restaurant.generate([TextRequest(length=8)], seed=3, steps=3)
        return [torch.tensor([ord(letter) for letter in made])]

    return {
        "load digits": lambda: loaded("digits"),
        "fit float32": lambda: trained(task, "fp32"),
        "sample digits": lambda: [digits.generate(["seven"], seed=3, steps=2)],
        "load restaurant": lambda: loaded("restaurant"),
        "fit bfloat16": lambda: trained(task, "bf16"),
        "sample texts": text,
        "fit float32 too": lambda: trained(task, "fp32"),
    }


def stress(seconds: float) -> Found:
    """Do all of it alone, then in eight threads for the given time, and compare to the bit."""
    found, lock, stop = Found(), threading.Lock(), threading.Event()
    kinds = works()
    with contextlib.redirect_stderr(io.StringIO()):  # the lines of the trainers
        alone = {name: [one.clone() for one in work()] for name, work in kinds.items()}

        def note(name: str, results: list[Tensor], wanted: list[Tensor]) -> None:
            fault = _difference(results, wanted)
            with lock:
                found.done[name] += 1
                if fault:
                    found.faults.append(f"{name}: {fault}")

        def repeat(name: str, work: Work) -> None:
            while not stop.is_set():
                try:
                    note(name, work(), alone[name])
                except Exception as error:
                    with lock:
                        found.faults.append(f"{name}: {type(error).__name__}: {error}")

        def build() -> None:
            for results in layers():
                built.append(results)
                if stop.wait(0.001):
                    return

        built: list[list[Tensor]] = []
        torch.manual_seed(11)
        threads = [threading.Thread(target=repeat, args=item) for item in kinds.items()]
        threads.append(threading.Thread(target=build))
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        stop.set()
        for thread in threads:
            thread.join()
    torch.manual_seed(11)
    for results, wanted in zip(built, itertools.islice(layers(), len(built)), strict=True):
        note("build layers", results, wanted)
    return found


def _difference(results: list[Tensor], wanted: list[Tensor]) -> str:
    if any(one.is_meta for one in results):
        return "a tensor without values"
    if len(results) != len(wanted):
        return f"{len(results)} tensors, not {len(wanted)}"
    differ = sum(not torch.equal(one, other) for one, other in zip(results, wanted, strict=True))
    return f"{differ} of {len(wanted)} tensors differ" if differ else ""


def main() -> None:
    """Run the program; its status is 1 if anything differs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.threads", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="duration in seconds (60)")
    seconds = parser.parse_args().seconds
    state = torch.get_rng_state()
    found = stress(seconds)
    torch.set_rng_state(state)
    for name, count in sorted(found.done.items()):
        print(f"{count:>7} x {name}")
    print(f"{len(found.faults)} differ from the same alone or failed")
    for line in found.faults[:10]:
        print(line)
    raise SystemExit(bool(found.faults))


if __name__ == "__main__":
    main()

"""Compute environment of a step: the accelerator, its precision, and the step's random draws."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import torch
from accelerate import Accelerator

from multidiff.core.draws import DrawsFrom, InsideCheckpoint, default_generator_seeded

Result = TypeVar("Result")
_BEGINNING = threading.Lock()


def begun_engine() -> Accelerator:
    """Return an accelerator without a precision of its own.

    Accelerate keeps one precision for the life of a process; autocast selects each run's
    instead, so that one process may train in float32 and then in bfloat16.
    """
    with _BEGINNING:
        try:
            return Accelerator(mixed_precision="no")
        except ValueError:  # the caller has created one with another precision
            engine = Accelerator()
            engine.native_amp, engine.scaler = False, None
            return engine


@contextmanager
def process_settings(threads: int | None) -> Iterator[None]:
    """Set the CPU threads and the GPU's float32 matmul precision for a run, and restore both.

    Args:
        threads: number of CPU threads; unchanged if None.
    """
    before, products = torch.get_num_threads(), torch.get_float32_matmul_precision()
    if threads is not None:
        torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        if threads is not None:
            torch.set_num_threads(before)
        if torch.cuda.is_available():
            torch.set_float32_matmul_precision(products)


class StepDraws:
    """Source of draws that name no generator, such as dropout's: a function of the step alone.

    Args:
        device: device that computes.
        redirected: whether to draw from a generator of the run and leave the process's alone.
            Where code repeats draws from the default generator (compiled code and, detected at
            the first step, ``torch.utils.checkpoint``), that one is seeded for the step and
            restored.
    """

    def __init__(self, device: torch.device, redirected: bool = True):
        self.device, self.redirected = device, redirected

    @contextmanager
    def of_step(self, seed: int) -> Iterator[Callable[[Callable[[], Result]], Result]]:
        """Seed the draws of this block; yields a function that calls another with them."""
        with ExitStack() as held:

            def begin() -> None:
                if self.redirected:
                    generator = torch.Generator(self.device).manual_seed(seed)
                    held.enter_context(DrawsFrom(generator))
                else:
                    held.enter_context(default_generator_seeded(seed, self.device))

            def computed(make: Callable[[], Result]) -> Result:
                try:
                    return make()
                except InsideCheckpoint:
                    held.close()
                    self.redirected = False
                    begin()
                    return make()

            begin()
            yield computed

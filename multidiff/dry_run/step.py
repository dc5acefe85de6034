"""Cost of one training step of a recipe, found without a GPU, weights or data.

Two passes, each with a model of full size whose weights are fake tensors
(:mod:`multidiff.dry_run.fake_tensors`). The first is a whole step on a fake CPU: forward, loss,
backward, optimizer and moving average, of which operations and memory are counted. The second is a
forward pass on a fake GPU, which fails where code makes a tensor on another device than it is used
on.

Components of a recipe that read files, such as data, vocabularies and weights of classifiers, are
replaced by what their class method ``synthetic`` makes from the same arguments
(:class:`multidiff.data.batches.Synthetic`).
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from multidiff.config.build import Spec
from multidiff.core.random import mixed_seed
from multidiff.data.batches import examples_in
from multidiff.dry_run.fake_tensors import (
    DeviceGenerator,
    LiveMemory,
    ValuesWhereKnown,
    give_fakes,
    placed,
)
from multidiff.dry_run.gpu_kernels import GpuKernels, autocast_on, flop_counter, run_backward
from multidiff.models.loading import check_recipe
from multidiff.models.weights import without_values
from multidiff.training.ema import MovingAverage
from multidiff.training.objective import Losses
from multidiff.training.optimizers import make_optimizer
from multidiff.training.precision import HALVES
from multidiff.training.recomputation import begin_checkpointing
from multidiff.training.trainer import Trainer
from multidiff.utils.errors import InputError

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
HERE = Path(__file__).parent
# Components that read nothing themselves.
HARMLESS = ("", "Batches", "AudioSource", "ImageSource", "TextSource")
OWN = ("multidiff.dry_run.fake_tensors", "multidiff.dry_run.gpu_kernels", "multidiff.dry_run.step")


@dataclass(frozen=True)
class StepCost:
    """Cost of one update of the weights, on one device.

    Attributes:
        trainable: number of trained parameters.
        frozen: number of frozen parameters.
        forward_flops: floating-point operations of the forward passes.
        flops: floating-point operations of the whole update.
        weights: bytes of parameters and buffers.
        gradients: bytes of gradients.
        optimizer: bytes of the optimizer's state.
        average: bytes of the weights' moving average.
        batch: bytes of a batch.
        activations: further bytes that exist between forward and backward pass.
        peak: largest number of bytes at any moment of a step.
        results: number of tensors that the step makes: about the number of kernels that a GPU
            launches without compilation.
        assumed: assumptions for lack of data, a line each.
    """

    trainable: int
    frozen: int
    forward_flops: int
    flops: int
    weights: int
    gradients: int
    optimizer: int
    average: int
    batch: int
    activations: int
    peak: int
    results: int
    assumed: tuple[str, ...] = ()


class StandIns:
    """Builds components, those that read files by their class method ``synthetic``.

    Attributes:
        assumed: assumptions made instead of reading files.
        plain: names of the components that were built normally.
    """

    def __init__(self) -> None:
        self.assumed: list[str] = []
        self.plain: list[str] = []

    def build(self, part: Spec) -> Any:
        """Build the object of a component.

        Raises:
            InputError: if it cannot be built from these values.
        """
        if part.make is None:
            return part.build()
        built = {key: self.build(argument) for key, argument in part.arguments.items()}
        synthetic = getattr(part.constructor, "synthetic", None)
        if synthetic is None:
            self.plain.append(getattr(part.constructor, "__name__", ""))
            return part.make(built)
        try:
            made = synthetic(**built)
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{part.where}: {error}") from error
        assumed = getattr(made, "assumed", "")
        if assumed and assumed not in self.assumed:
            self.assumed.append(assumed)
        return made


@dataclass
class Recipe:
    """A recipe that is checked and ready for dry runs.

    Attributes:
        path: recipe file.
        parts: its sections.
        trainer: its trainer.
        stand_ins: builder of components that replaces those that read files.
    """

    path: Path
    parts: dict[str, Spec]
    trainer: Trainer
    stand_ins: StandIns = field(default_factory=StandIns)

    @classmethod
    def read(cls, path: Path, overrides: Sequence[str] = ()) -> Recipe:
        """Read and check a recipe.

        Raises:
            InputError: if it is wrong, or lacks a section that training needs.
        """
        parts = check_recipe(path, overrides)
        for needed in ("model", "data", "trainer"):
            if needed not in parts:
                raise InputError(f"{path}: has no section {needed!r}, which a dry run needs")
        return cls(path, parts, parts["trainer"].build())

    def model(self) -> Any:
        """Build the model; its parameters have no values."""
        with without_values():
            return self.stand_ins.build(self.parts["model"])

    def batches(self) -> Any:
        """Build the batches.

        Raises:
            InputError: if a component needs data that are missing and has no ``synthetic``.
        """
        already = len(self.stand_ins.plain)
        try:
            return self.stand_ins.build(self.parts["data"])
        except InputError as error:
            named = [one for one in self.stand_ins.plain[already:] if one not in HARMLESS]
            raise InputError(
                f"{error}; a dry run needs the data of {' or '.join(named)}, which has no class "
                "method `synthetic` (docs/add_a_modality.md)"
                if named
                else str(error)
            ) from error

    @property
    def batch_size(self) -> int:
        """Number of examples of one batch."""
        return len(next(iter(self.batches().batch(0).values())))

    @property
    def precision(self) -> str:
        """Return the precision in which a GPU would compute the network."""
        return "bf16" if self.trainer.precision == "auto" else self.trainer.precision


class FakeRun:
    """Fake tensors of one device, and the modes to compute on them.

    Args:
        path: recipe, for messages.
        device: device to compute on.

    Attributes:
        memory: counter of the tensors' bytes.
        values: mode that makes fake tensors.
    """

    def __init__(self, path: Path, device: torch.device):
        self.path, self.device = path, device
        self.memory = LiveMemory()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.values = ValuesWhereKnown(self.fake, self.memory)

    @contextmanager
    def modes(self) -> Iterator[None]:
        """Compute on fake tensors, and name the line where that fails."""
        with ExitStack() as stack:
            stack.enter_context(_quiet())
            stack.enter_context(self.fake)
            stack.enter_context(self.values)
            stack.enter_context(GpuKernels(self.device))
            try:
                yield
            except InputError:
                raise
            except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
                raise InputError(f"{self.path}: {where(error)}") from error


class _Pass(FakeRun):
    """A model on fake tensors of one device, and a batch for it.

    Args:
        recipe: the recipe.
        device: device to compute on.
    """

    def __init__(self, recipe: Recipe, device: torch.device):
        super().__init__(recipe.path, device)
        self.recipe = recipe
        self.model = recipe.model()
        task = self.model.task()
        if hasattr(task, "begin_costliest"):
            task.begin_costliest()
        if recipe.trainer.gradient_checkpointing:
            begin_checkpointing(task)
        self.weights = give_fakes(task, device, self.values)
        self.losses = Losses(task).train()

    def batch(self) -> dict[str, Any]:
        """Return a batch on the device."""
        batches = self.recipe.batches()
        with self.modes(), torch.no_grad():
            if "precompute" in self.recipe.parts:
                precompute = self.recipe.stand_ins.build(self.recipe.parts["precompute"])
                batches = precompute(self.model, batches)
            return self._sent(batches.batch(0))

    def _sent(self, batch: dict[str, Any]) -> dict[str, Any]:
        def sent(one: Any) -> Any:
            if isinstance(one, dict):
                return self._sent(one)
            if not isinstance(one, Tensor):
                return one
            value = self.values.value_of(one)
            if value is None:
                return self.values.shaped(one, self.device)
            return placed(value, self.device, self.values)

        return {key: sent(one) for key, one in batch.items()}

    def losses_of(self, batch: dict[str, Any], micro: int) -> dict[str, Tensor]:
        """Return the mean losses of a batch, as training computes them."""
        rows = examples_in(batch)
        seeds = [mixed_seed(self.recipe.trainer.seed, 3, micro, row) for row in range(rows)]
        rng = [DeviceGenerator(self.device, seed) for seed in seeds]
        with autocast_on(self.device, HALVES.get(self.recipe.precision)):
            return self.losses(batch, cast(Any, rng))


def cost_of_step(recipe: Recipe) -> StepCost:
    """Run one training step of a recipe on a fake CPU and count its cost.

    Raises:
        InputError: if the recipe's code cannot run without values of weights or without data.
    """
    run, trainer = _Pass(recipe, CPU), recipe.trainer
    weights = run.memory.now
    batch = run.batch()
    with run.modes():
        return _counted_step(run, trainer, batch, weights)


def _counted_step(run: _Pass, trainer: Trainer, batch: dict[str, Any], weights: int) -> StepCost:
    memory, parameters = run.memory, run.weights
    sent = memory.now - weights
    average = MovingAverage(run.losses.task, trainer.ema_decay)
    averaged = memory.now - weights - sent
    memory.peak, made = memory.now, memory.made
    forward = total = activations = 0
    for micro in range(min(trainer.gradient_accumulation_steps, 2)):
        held = memory.now
        with flop_counter() as counter:
            loss = torch.stack(list(run.losses_of(batch, micro).values())).sum()
            forward, activations = counter.get_total_flops(), memory.now - held
            run_backward(loss / trainer.gradient_accumulation_steps)
            del loss
        total = counter.get_total_flops()
    trained = [one for one in run.losses.parameters() if one.requires_grad]
    torch.nn.utils.clip_grad_norm_(trained, trainer.max_gradient_norm)
    peak, before, results = memory.peak, memory.now, memory.made - made
    optimizer = make_optimizer(run.losses, trainer, "cpu")
    optimizer.step()
    state = memory.now - before
    average.update()
    return StepCost(
        trainable=sum(one.numel() for one in parameters if one.requires_grad),
        frozen=sum(one.numel() for one in parameters if not one.requires_grad),
        forward_flops=forward * trainer.gradient_accumulation_steps,
        flops=total * trainer.gradient_accumulation_steps,
        weights=weights,
        gradients=sum(one.grad.nbytes for one in trained if one.grad is not None),
        optimizer=state,
        average=averaged,
        batch=sent,
        activations=activations,
        # Only the first step starts without the optimizer's state.
        peak=max(peak + state, memory.peak),
        results=results
        * trainer.gradient_accumulation_steps
        // min(trainer.gradient_accumulation_steps, 2),
        assumed=tuple(run.recipe.stand_ins.assumed),
    )


def check_devices(recipe: Recipe) -> None:
    """Run the forward pass of a recipe's training step on a fake GPU.

    Raises:
        InputError: if a tensor is made on another device than it is used on; names the module
            and the line.
    """
    run = _Pass(recipe, CUDA)
    batch = run.batch()
    with run.modes():
        run.losses_of(batch, 0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress warnings about data, which are synthetic here."""
    logger = logging.getLogger("multidiff")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def where(error: BaseException) -> str:
    """Return the last line outside torch that an error came through, and its message."""
    frames = [
        (frame, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not frame.f_globals.get("__name__", "").startswith(("torch.", *OWN))
    ]
    frame, line = frames[-1]
    owner = frame.f_locals.get("self")
    name = f"{type(owner).__name__}." if owner is not None else ""
    file = Path(frame.f_code.co_filename)
    file = file.relative_to(HERE.parent) if file.is_relative_to(HERE.parent) else file
    reason = str(error).strip().partition("\n")[0]
    return f"{name}{frame.f_code.co_name} ({file}:{line}): {reason}"

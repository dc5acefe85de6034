"""One run of the trainer: its weights, optimizer and moving average, and one step of them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate.utils import DistributedType
from torch import Tensor, nn

from multidiff.core.random import BatchRows, Rng, mixed_seed
from multidiff.core.task import TAKEN
from multidiff.data.batches import BatchSource, moved_batch, stream
from multidiff.training.checkpoints import Checkpoint, CheckpointFolder, claimed
from multidiff.training.ema import MovingAverage
from multidiff.training.engine import StepDraws, begun_engine
from multidiff.training.logging import TrainingLog
from multidiff.training.lr_schedule import rate_at
from multidiff.training.modes import Modes
from multidiff.training.optimizers import make_optimizer
from multidiff.training.precision import computes_in_bfloat16
from multidiff.training.record import Record
from multidiff.training.resuming import check_assets, continued, rate_and_precision
from multidiff.training.shards import gathered_weights, keep_precision, put_whole
from multidiff.training.state import gathered, put_back
from multidiff.utils.errors import InputError

if TYPE_CHECKING:
    from multidiff.training.trainer import Preview, Trainer

# Streams of random numbers that must not overlap.
WEIGHTS, NOISE, HELD_OUT = 2, 3, 4
# Reading a loss makes a GPU wait, so several are read at once; on the CPU each is read at once.
UNREAD_ON_GPU = 16


class Losses(nn.Module):
    """A task as a module whose forward pass returns its losses, for engines that wrap modules."""

    def __init__(self, task: nn.Module):
        super().__init__()
        self.task: Any = task

    def forward(self, batch: Any, rng: Rng) -> dict[str, Tensor]:
        """Return the mean losses by name.

        Raises:
            ValueError: if a loss has a name that is reserved in the log.
        """
        found = self.task.losses(batch, rng)
        taken = sorted((TAKEN - {"denoising"}) & found.keys())
        if taken:
            raise ValueError(
                f"a loss is named {taken[0]!r}, which is reserved in the log: rename it"
            )
        return {name: _full(loss.mean()) for name, loss in found.items()}


class Run:
    """A task in training.

    Args:
        plan: training settings.
        task: task to train.
        batches: training batches.
        folder: folder of the checkpoints and logs, or None.
        texts: files to keep in each checkpoint, the model's assets among them.
        record: recipe and data of the run.
    """

    def __init__(
        self,
        plan: Trainer,
        task: nn.Module,
        batches: BatchSource,
        folder: Path | None,
        texts: dict[str, str],
        record: Record,
    ):
        self.plan, self.batches, self.folder, self.texts = plan, batches, folder, texts
        self.record = record
        self.engine = begun_engine()
        # One process that does not gain decides for all of them.
        self._bfloat16 = not self.any_process(not computes_in_bfloat16(plan.precision, task))
        keep_precision(getattr(self.engine.state, "fsdp_plugin", None))
        if plan.compile:
            task.compile()
        self.draws = StepDraws(self.engine.device, redirected=not plan.compile)
        self.losses, self.optimizer = self.engine.prepare(
            Losses(task), make_optimizer(task, plan, self.engine.device.type)
        )
        # Accelerate's wrappers look for packages at each step, which a process that is the only
        # one can do without: that cost a small network a tenth of its step.
        self._is_alone = self.engine.distributed_type == DistributedType.NO
        if self._is_alone:
            self.optimizer = self._bare_optimizer()
        self.modes = Modes(self.losses)
        self.task = self.engine.unwrap_model(self.losses).task
        # After the engine has prepared them; looking them up costs more than clipping.
        self._trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        # Of this run's settings: a checkpoint's groups hold the rates of its own step.
        self._peak_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.average = MovingAverage(self.task, plan.ema_decay)
        self.step = 0
        self.last_losses: dict[str, float] = {}
        self._unread: list[tuple[int, list[str], dict[str, Tensor]]] = []
        self._since_log: list[dict[str, float]] = []

    # ------------------------------------------------------------------ begin and end

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """Lock the folder against other runs, and remove leftovers of killed ones.

        Raises:
            InputError: if another run has the lock.
        """
        if self.folder is None or not self.engine.is_main_process:
            return contextlib.nullcontext()
        return claimed(self.folder)

    def begin(self, resume: bool, allow_changed: Collection[str] = ()) -> None:
        """Load the newest checkpoint, or make sure that none would be overwritten.

        Args:
            resume: whether to resume from a checkpoint.
            allow_changed: kinds of changes that are allowed (see :class:`Record`).

        Raises:
            InputError: if there is nothing to resume, the checkpoint belongs to a different run,
                or the folder holds another run.
        """
        notes: list[str] = []
        if self.folder is not None:
            self.checkpoints = CheckpointFolder(self.folder, self.plan.keep_checkpoints)
            if resume:
                found = self.checkpoints.newest()
                name = str(self.folder)
                self._keep_single_precision(found)
                self.record, notes = continued(found, self.record, allow_changed, name)
                check_assets(found, self.texts, name)
                notes += rate_and_precision(found, self.plan, self.precision, name)
                put_back(found, self.losses, self._bare_optimizer(), self.average)
                self.step = found.step
            elif self.checkpoints.paths():
                raise InputError(
                    f"{self.folder}: holds the checkpoints of a run; pass --resume to continue "
                    "it, or choose another folder"
                )
        self.log = TrainingLog(self.plan.steps, self.step, self.folder, self.engine.is_main_process)
        if self._bfloat16 and self.engine.device.type == "cpu":
            self.log.say("computing in bfloat16; trainer.precision=fp32 computes in float32")
        for note in notes:
            self.log.say(note)
        if resume:
            self.log.say(f"resuming from step {self.step}")

    def _keep_single_precision(self, found: Checkpoint) -> None:
        """Let ``auto`` go on in float32 where a run began in it, on whatever CPU."""
        began = found.numbers.get("precision", self.precision)
        if self.plan.precision == "auto" and self.engine.device.type == "cpu" and began == "fp32":
            self._bfloat16 = False

    @property
    def precision(self) -> str:
        """Return the dtype that the network computes in."""
        return "bf16" if self._bfloat16 else "fp32"

    def finish(self) -> None:
        """Put the averaged weights into the task, ready for sampling."""
        self._read_losses()
        self.modes.finish()
        for name, value in self.average.shadow.items():
            put_whole(self.task, name, value)
        self.engine.wait_for_everyone()

    # -------------------------------------------------------------------------- steps

    def steps_to_go(self) -> Iterator[int]:
        """Yield the numbers of the remaining steps, from 1."""
        plan = self.plan
        first, last = (
            self.step * plan.gradient_accumulation_steps,
            plan.steps * plan.gradient_accumulation_steps,
        )
        cuda = self.engine.device.type == "cuda"
        self._stream = stream(
            self.batches,
            range(first, last),
            self.engine.process_index,
            self.engine.num_processes,
            plan.workers,
            pin=cuda,
        )
        yield from range(self.step + 1, plan.steps + 1)

    def advance(self, step: int) -> None:
        """Make one update of the weights."""
        plan = self.plan
        self.modes.train()
        factor = rate_at(step - 1, plan.steps, plan.warmup_steps, plan.decay, plan.decay_from)
        for group, peak in zip(self.optimizer.param_groups, self._peak_rates, strict=True):
            group["lr"] = peak * factor
        for parameter in self._trained:
            parameter.grad = None
        names: list[str] = []
        sums: dict[str, Tensor] = {}
        # Dropout and the like; each process its own.
        seed = mixed_seed(plan.seed, WEIGHTS, step, self.engine.process_index)
        with self.draws.of_step(seed) as computed:
            for micro in range(plan.gradient_accumulation_steps):
                last = micro == plan.gradient_accumulation_steps - 1
                with contextlib.nullcontext() if last else self.engine.no_sync(self.losses):
                    batch = next(self._stream)
                    names += _names(batch)
                    number = (step - 1) * plan.gradient_accumulation_steps + micro
                    losses = computed(lambda b=batch, n=number: self._losses_of(b, NOISE, n))
                    losses = _parts_of_mean(losses, plan.gradient_accumulation_steps)
                    self._backward(_total(losses))
                for name, loss in losses.items():
                    loss = loss.detach()
                    sums[name] = sums[name] + loss if name in sums else loss
        norm = self._clip_gradients()
        self.optimizer.step()
        self.average.update()
        self.step = step
        self._unread.append((step, names, {**sums, "gradient": torch.as_tensor(norm).detach()}))
        self.log.advance(step)
        cuda = self.engine.device.type == "cuda"
        if step % plan.log_every == 0 or len(self._unread) >= (UNREAD_ON_GPU if cuda else 1):
            self._read_losses()
        if step % plan.log_every == 0 or step == plan.steps:
            self._read_losses()
            self._tell(factor)

    def _backward(self, loss: Tensor) -> None:
        if self._is_alone:
            loss.backward()
        else:
            self.engine.backward(loss)

    def _clip_gradients(self) -> Tensor | None:
        """Shorten the gradients, and return the length that they had."""
        longest = self.plan.max_gradient_norm
        if self._is_alone:
            return nn.utils.clip_grad_norm_(self._trained, longest)
        return self.engine.clip_grad_norm_(self._trained, longest)

    def _losses_of(self, batch: dict[str, Any], use: int, number: int) -> dict[str, Tensor]:
        engine, count = self.engine, len(next(iter(batch.values())))
        sent = moved_batch(batch, engine.device)
        rng = BatchRows(
            mixed_seed(self.plan.seed, use, number),
            count,
            first=engine.process_index * count,
            total=engine.num_processes * count,
            device=engine.device,
        )
        if not self._bfloat16:
            return self.losses(sent, rng)
        with torch.autocast(engine.device.type, torch.bfloat16):
            return self.losses(sent, rng)

    def _read_losses(self) -> None:
        """Check that all losses are finite before they reach a log or a checkpoint."""
        for step, names, values in self._unread:
            read = {name: float(value) for name, value in values.items()}
            bad = [name for name, value in read.items() if not math.isfinite(value)]
            if self.any_process(bool(bad)):
                self._stop_on(step, names, bad)
            self._since_log.append(read)
        self._unread.clear()

    def _stop_on(self, step: int, names: list[str], bad: list[str]) -> None:
        what = f"{', '.join(bad)} is not a finite number" if bad else "another process stopped"
        files = f" on {', '.join(names)}" if names else ""
        kept = "nothing was saved after it; lower the learning rate or check those files"
        raise InputError(f"step {step}: {what}{files}; {kept}")

    def _tell(self, factor: float) -> None:
        count = len(self._since_log)
        means = {
            name: sum(one[name] for one in self._since_log) / count for name in self._since_log[0]
        }
        if self.engine.num_processes > 1:
            device = self.engine.device
            means = {
                name: self._reduced(torch.tensor(value, device=device), "mean")
                for name, value in means.items()
            }
        self._since_log.clear()
        self.last_losses = means
        self.log.tell(self.step, "train", {**means, "rate": self.plan.learning_rate * factor})

    def look(self, validation: BatchSource | None, preview: Preview | None) -> None:
        """Log validation losses and previews, with the averaged weights."""
        self.modes.eval()
        seed = mixed_seed(self.plan.seed, HELD_OUT, self.step, self.engine.process_index)
        with (
            self.average.in_place(),
            gathered_weights(self.losses),
            torch.no_grad(),
            self.draws.of_step(seed) as computed,
        ):
            if validation is not None:
                means = computed(lambda: self._validation_losses(validation))
                self.log.tell(self.step, "held-out", means)
            if preview is not None and self.folder is not None:
                preview(self.log.writer, self.step)

    def _validation_losses(self, validation: BatchSource) -> dict[str, float]:
        engine, sums = self.engine, {}
        for number in range(self.plan.validation_batches):
            batch = validation.batch(number, engine.process_index, engine.num_processes)
            for name, loss in self._losses_of(batch, HELD_OUT, number).items():
                sums[name] = sums.get(name, 0) + loss / self.plan.validation_batches
        return {name: self._reduced(loss, "mean") for name, loss in sums.items()}

    def _reduced(self, value: Tensor, how: str) -> float:
        return float(cast(Tensor, self.engine.reduce(value, how)))

    def any_process(self, here: bool) -> bool:
        """Return whether something is true in any process; all get the same answer."""
        if self.engine.num_processes == 1:
            return here
        flag = torch.tensor(float(here), device=self.engine.device)
        return self._reduced(flag, "sum") > 0

    # -------------------------------------------------------------------- checkpoints

    def save(self) -> None:
        """Write a checkpoint, if there is a folder."""
        self._read_losses()
        if self.folder is None:
            return
        checkpoint = gathered(self.step, self.losses, self._bare_optimizer(), self.average)
        checkpoint.texts = self.record.with_history(self.texts)
        checkpoint.record = self.record
        checkpoint.numbers["precision"] = self.precision
        if self.engine.is_main_process:
            self.checkpoints.save(checkpoint)
        self.engine.wait_for_everyone()

    def _bare_optimizer(self) -> torch.optim.Optimizer:
        return getattr(self.optimizer, "optimizer", self.optimizer)


def _full(loss: Tensor) -> Tensor:
    return loss.float() if loss.dtype in (torch.bfloat16, torch.float16) else loss


def _names(batch: dict[str, Any]) -> list[str]:
    return [str(name) for name in batch.get("name", [])]


def _parts_of_mean(losses: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Return what a batch's losses contribute to the means over several batches."""
    return losses if count == 1 else {name: loss / count for name, loss in losses.items()}


def _total(losses: dict[str, Tensor]) -> Tensor:
    first, *others = losses.values()
    return torch.stack([first, *others]).sum() if others else first

"""One run of the trainer: its steps, its log, its validations and its checkpoints."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from multidiff.core.random import mixed_seed
from multidiff.data.batches import BatchSource, examples_in, stream
from multidiff.training.best import BestSoFar
from multidiff.training.callbacks import Callbacks, TrainingState
from multidiff.training.checkpoints import BEST, CheckpointFolder, claimed
from multidiff.training.logging import TrainingLog
from multidiff.training.posthoc_ema import PowerAverages, drop_snapshots_beyond, write_snapshot
from multidiff.training.precision import HALVES
from multidiff.training.record import Record
from multidiff.training.resuming import check_assets, continued, rate_and_precision
from multidiff.training.state import gathered, put_back
from multidiff.training.updates import CALLBACKS, HELD_OUT, Updates
from multidiff.utils.errors import InputError

if TYPE_CHECKING:
    from multidiff.training.trainer import Preview, Trainer

# Reading a loss makes a GPU wait, so several are read at once; on the CPU each is read at once.
UNREAD_ON_GPU = 16


class Run(Updates):
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
        super().__init__(plan, task)
        self.batches, self.folder, self.texts, self.record = batches, folder, texts, record
        self.best = BestSoFar(plan.early_stopping, plan.keep_best)
        self.step = 0
        self.last_losses: dict[str, float] = {}
        self._unread: list[tuple[int, list[str], dict[str, Tensor]]] = []
        self._since_log: list[dict[str, float]] = []

    # ------------------------------------------------------------------ begin and end

    def alone(self) -> AbstractContextManager[None]:
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
                self.best.load(found.numbers)
                if self.powers is not None:
                    self.powers.load(found.tensors.get("posthoc", {}))
                    if self.engine.is_main_process:
                        drop_snapshots_beyond(self.folder, found.step)
                if self.scaler is not None and "loss_scaler" in found.numbers:
                    self.scaler.load(found.numbers["loss_scaler"])
                self.step = found.step
            elif self.checkpoints.paths():
                raise InputError(
                    f"{self.folder}: holds the checkpoints of a run; pass --resume to continue "
                    "it, or choose another folder"
                )
        self.log = TrainingLog(
            self.plan.steps,
            self.step,
            self.folder,
            self.engine.is_main_process,
            self.plan.trackers,
            self.record.recipe,
        )
        if self.precision != "fp32" and self.engine.device.type == "cpu":
            name = str(HALVES[self.precision]).removeprefix("torch.")
            self.log.say(f"computing in {name}; trainer.precision=fp32 computes in float32")
        self.callbacks = self._callbacks()
        for note in notes:
            self.log.say(note)
        self.saved = self.step
        if resume:
            self.log.say(f"resuming from step {self.step}")

    def _callbacks(self) -> Callbacks | None:
        if not self.plan.callbacks:
            return None
        state = TrainingState(
            self.step, self.plan.steps, self.task, self.folder, self.log, self._averaged
        )
        rank = self.engine.process_index
        return Callbacks(
            self.plan.callbacks,
            state,
            self.engine.device,
            lambda step: mixed_seed(self.plan.seed, CALLBACKS, step, rank),
            self.any_process,
        )

    def call(self, moment: str, *values: Any) -> None:
        """Call the callbacks that wait for a moment.

        Raises:
            CallbackError: if one raises.
        """
        if self.callbacks is not None and self.callbacks(moment, self.step, *values):
            self.modes.forget()

    def finish(self) -> None:
        """Put the averaged weights into the task, ready for sampling."""
        self._read_losses()
        super().finish()
        self.call("on_train_end")

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
        if not self.stops_early():
            yield from range(self.step + 1, plan.steps + 1)

    def stops_early(self) -> bool:
        """Return whether early stopping or a callback ends training here, and say so."""
        reason = self.best.reason
        if not reason and self.callbacks and self.any_process(bool(self.callbacks.stop_reason)):
            reason = self.callbacks.stop_reason or "a callback of another process"
        if reason:
            self._read_losses()
            if self._since_log:
                self._log_losses(self.rate_factor(self.step))
            self.log.say(f"step {self.step}: stopped by {reason}")
        return bool(reason)

    def advance(self, step: int) -> None:
        """Make one update of the weights."""
        factor = self.rate_factor(step)
        names, values = self.update(step, self._stream, factor)
        self.step = step
        self._unread.append((step, names, values))
        self.log.advance(step)
        every, cuda = self.plan.log_every, self.engine.device.type == "cuda"
        if step % every == 0 or len(self._unread) >= (UNREAD_ON_GPU if cuda else 1):
            self._read_losses()
        if step % every == 0 or step == self.plan.steps:
            self._read_losses()
            self._log_losses(factor)
        if self.powers is not None and self.powers.is_due(step, self.plan.steps):
            self._keep_averages(self.powers)
        if self.callbacks is not None:
            self.call("on_step_end")

    def _keep_averages(self, powers: PowerAverages) -> None:
        self._read_losses()
        tensors = powers.tensors()
        if self.folder is not None and self.engine.is_main_process:
            write_snapshot(self.folder, self.step, tensors)
        self.engine.wait_for_everyone()

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

    def _log_losses(self, factor: float) -> None:
        values: dict[str, list[float]] = {}
        for one in self._since_log:  # a skipped step has no gradient's norm
            for name, value in one.items():
                values.setdefault(name, []).append(value)
        means = self._means(
            {
                name: torch.tensor([sum(found), len(found)], dtype=torch.float64)
                for name, found in values.items()
            }
        )
        self._since_log.clear()
        self.last_losses = means
        logged = {**means, "rate": self.plan.learning_rate * factor}
        if self.scaler is not None:
            logged |= {"loss_scale": self.scaler.scale, "skipped": float(self.scaler.skipped)}
        self.log.log_metrics(self.step, "train", logged)
        self.call("on_log", logged)

    def look(self, validation: BatchSource | None, preview: Preview | None) -> None:
        """Log validation losses and previews, with the averaged weights."""
        means = {}
        with self._averaged(), self._held_out_draws() as computed:
            if validation is not None:
                count = self.plan.validation_batches
                means = computed(lambda: self._validation_losses(validation, count))
                self.log.log_metrics(self.step, "held-out", means)
            if preview is not None and self.folder is not None:
                preview(self.log.writer, self.step)
        if means:
            self.call("on_validation", means)
        if means and self.best.see(self.step, means):
            self.save(BEST)

    def check_metrics(self, validation: BatchSource) -> None:
        """Compute validation losses, of one batch if that is enough, if a setting names one.

        Raises:
            InputError: if there is no such loss.
        """
        if self.best.metrics:
            with self._averaged(), self._held_out_draws() as computed:
                found = computed(lambda: self._validation_losses(validation, 1))
                if not found.keys() >= {*self.best.metrics.values()}:  # only in later batches?
                    count = max(1, self.plan.validation_batches)
                    found = computed(lambda: self._validation_losses(validation, count))
                self.best.check(found)

    def _held_out_draws(self) -> AbstractContextManager[Callable[[Callable[[], Any]], Any]]:
        seed = mixed_seed(self.plan.seed, HELD_OUT, self.step, self.engine.process_index)
        return self.draws.of_step(seed)

    def _validation_losses(self, validation: BatchSource, count: int) -> dict[str, float]:
        """Return the mean of each loss over the examples of the batches that have it."""
        engine, sums = self.engine, {}
        for number in range(count):
            batch = validation.batch(number, engine.process_index, engine.num_processes)
            rows = examples_in(batch)
            for name, loss in self._losses_of(batch, HELD_OUT, number).items():
                found = torch.stack([loss * rows, torch.full_like(loss, rows)])
                sums[name] = sums[name] + found if name in sums else found
        return self._means(sums)

    # -------------------------------------------------------------------- checkpoints

    def save(self, name: str | None = None) -> None:
        """Write a checkpoint, if there is a folder.

        Args:
            name: see :meth:`CheckpointFolder.save`.
        """
        self._read_losses()
        if self.folder is None:
            return
        checkpoint = gathered(self.step, self.losses, self._bare_optimizer(), self.average)
        checkpoint.texts = self.record.with_history(self.texts)
        checkpoint.record = self.record
        checkpoint.numbers |= {"precision": self.precision, **self.best.state()}
        if self.powers is not None:
            checkpoint.tensors["posthoc"] = self.powers.tensors()
        if self.scaler is not None:
            checkpoint.numbers["loss_scaler"] = self.scaler.state()
        if self.engine.is_main_process:
            self.checkpoints.save(checkpoint, name)
        self.engine.wait_for_everyone()
        self.saved = self.saved if name else self.step
        self.call("on_save", self.checkpoints.path_of(self.step, name))

"""One trainer for every task.

It knows losses by name only, not what they measure. Every random draw of a step
is seeded by the step, so a run that was interrupted continues exactly as if it had not been, and
several processes draw for their rows of a batch what one process would have drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor

from multidiff.core.random import Rng
from multidiff.data.batches import BatchSource, source_of
from multidiff.training.best import EarlyStopping
from multidiff.training.callbacks import Callback, CallbackError
from multidiff.training.engine import process_settings
from multidiff.training.lr_schedule import Decay, check_name
from multidiff.training.optimizers import OptimizerName, ParameterGroup, optimizer_class
from multidiff.training.posthoc_ema import PosthocEMA
from multidiff.training.precision import Precision
from multidiff.training.record import Record, fingerprints
from multidiff.training.resuming import checked_kinds
from multidiff.training.run import Run
from multidiff.training.trackers import TrackerName, check_packages, check_trackers
from multidiff.utils.errors import InputError, Interrupted
from multidiff.utils.signals import interruptions


@runtime_checkable
class Task(Protocol):
    """A module with losses.

    If training becomes more expensive on the way, as when a discriminator joins, a method
    ``begin_costliest()`` may switch to the most expensive part, which dry runs then measure.
    """

    def losses(self, batch: Any, rng: Rng | None) -> dict[str, Tensor]:
        """Return the losses of each sample by name; the mean of their sum is minimised."""
        ...


Preview = Callable[[Any, int], None]
MOST_THREADS = 1024
# Settings of batches that determine the content of a batch.
BATCHED = ("batch_size", "seed", "shuffle", "group_by_length")


@dataclass(kw_only=True)
class Trainer:
    """Training loop and its settings.

    Attributes:
        steps: number of weight updates.
        optimizer: optimizer of ``torch.optim`` by name, or ``module:Class``.
        optimizer_options: further arguments of its constructor.
        parameter_groups: weights with their own learning rate or weight decay, by pattern.
        learning_rate: peak learning rate.
        warmup_steps: number of steps over which the rate grows from 0.
        decay: shape of the rate's decay to 0.
        decay_from: fraction of the steps after which it decays.
        betas: betas of AdamW and its relatives.
        weight_decay: weight decay.
        max_gradient_norm: largest gradient norm; longer gradients are clipped to it.
        gradient_accumulation_steps: number of batches for one update.
        precision: "fp32", "bf16" or "fp16" (autocast; fp16 with a dynamic loss scale), or "auto":
            bf16 on a GPU, and on a CPU where it is measured faster (see
            :func:`~multidiff.training.precision.computes_in_bfloat16`).
        ema_decay: decay of the weights' moving average, which is the result of training.
        posthoc_ema: averages of which snapshots are kept, to make averages of any width afterwards.
        gradient_checkpointing: whether to recompute activations in the backward pass, which takes
            less memory and a third more computation; for networks with the attribute of that name.
        compile: whether to compile the network (minutes at the start, then faster on a GPU).
        seed: random seed of the weights and the batches.
        log_every: number of steps between lines of the log.
        save_every: number of steps between checkpoints.
        keep_checkpoints: number of newest checkpoints to keep.
        validate_every: number of steps between validations and previews.
        validation_batches: number of held-out batches in a validation.
        early_stopping: end of training when a validation loss falls no longer.
        keep_best: name of a validation loss; the checkpoint of its lowest value is kept as
            ``checkpoints/best``.
        callbacks: objects that are called during training.
        trackers: trackers that receive the log and the previews: "tensorboard", "wandb", "trackio".
        workers: number of data-loading processes for each training process.
        threads: number of CPU threads for each process while it trains; torch's default if None.
    """

    steps: int
    optimizer: OptimizerName = "AdamW"
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    parameter_groups: list[ParameterGroup] = field(default_factory=list)
    learning_rate: float = 2e-4
    warmup_steps: int = 0
    decay: Decay = "none"
    decay_from: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0
    gradient_accumulation_steps: int = 1
    precision: Precision = "auto"
    ema_decay: float = 0.9999
    posthoc_ema: PosthocEMA | None = None
    gradient_checkpointing: bool = False
    compile: bool = False
    seed: int = 0
    log_every: int = 50
    save_every: int = 1000
    keep_checkpoints: int = 3
    validate_every: int = 1000
    validation_batches: int = 8
    early_stopping: EarlyStopping | None = None
    keep_best: str | None = None
    callbacks: list[Callback] = field(default_factory=list)
    trackers: Sequence[TrackerName] = ("tensorboard",)
    workers: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        check_name("decay", self.decay, get_args(Decay))
        check_name("precision", self.precision, get_args(Precision))
        optimizer_class(self.optimizer)
        check_trackers(self.trackers)
        for one in self.callbacks:
            if not isinstance(one, Callback):
                raise ValueError(f"callbacks: {type(one).__name__} must be a subclass of Callback")
        least_one = (
            "steps",
            "gradient_accumulation_steps",
            "log_every",
            "save_every",
            "keep_checkpoints",
            "validate_every",
        )
        for name in least_one:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: must be at least 1")
        if not 0 < self.learning_rate < math.inf or not 0 <= self.decay_from <= 1:
            raise ValueError(
                f"learning_rate {self.learning_rate:g} must be positive and "
                f"decay_from {self.decay_from:g} in [0, 1]"
            )
        for name in ("warmup_steps", "validation_batches", "workers", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} {getattr(self, name)}: must be 0 or more, and finite")
        for name, ratio in (("ema_decay", self.ema_decay), *(("betas", one) for one in self.betas)):
            if not 0 <= ratio < 1:
                raise ValueError(f"{name} {ratio:g}: must be in [0, 1)")
        if not self.max_gradient_norm > 0:
            raise ValueError(f"max_gradient_norm {self.max_gradient_norm:g} must be positive")
        if self.threads is not None and not 1 <= self.threads <= MOST_THREADS:
            raise ValueError(f"threads {self.threads}: must be 1 to {MOST_THREADS}")
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed {self.seed}: must have 64 bits or fewer")

    def fit(
        self,
        task: torch.nn.Module,
        batches: BatchSource | list[dict[str, Any]],
        validation: BatchSource | list[dict[str, Any]] | None = None,
        *,
        out: Path | str | None = None,
        resume: bool = False,
        texts: Mapping[str, str] | None = None,
        preview: Preview | None = None,
        record: Record | None = None,
        allow_changed: Collection[str] = (),
    ) -> Outcome:
        """Train a task and leave it with the averaged weights.

        Args:
            task: a module with ``losses``.
            batches: training batches.
            validation: validation batches.
            out: folder for checkpoints and logs; nothing is written if None.
            resume: whether to resume from the newest intact checkpoint in ``out``.
            texts: files to keep in each checkpoint, by name: the recipe, the model's assets.
            preview: function called with TensorBoard's writer and the step, the weights averaged.
            record: recipe and data of the run; if None, the trainer's and the batches' settings
                and data. Training never resumes from a checkpoint with a different record.
            allow_changed: what may have changed since the checkpoint: ``recipe``, ``data``.

        Returns:
            The outcome: steps done and last losses.

        Raises:
            InputError: if a loss is not finite, naming step and files; if ``out`` holds
                another run or nothing to resume, or something changed that is not allowed; if
                the system refuses a write.
        """
        source = source_of(batches)
        validation = None if validation is None else source_of(validation)
        checked_kinds(allow_changed)
        folder = None if out is None else Path(out)
        if record is None:
            record = Record({}, {}) if folder is None else self._record(source, validation)
        self.check_needs(validation is not None)
        if folder is not None:
            check_packages(self.trackers)
        if self.keep_best is not None and folder is None:
            raise InputError("trainer.keep_best: needs a folder; give out")
        with process_settings(self.threads):
            run = Run(self, task, source, folder, dict(texts or {}), record)
            self._go(run, validation, resume, allow_changed, preview)
        return Outcome(run.step, run.last_losses, run.engine.is_main_process, run.record)

    def check_needs(self, has_validation: bool) -> None:
        """Reject settings that need validation data where there are none.

        Raises:
            InputError: if a setting does.
        """
        for name in ("early_stopping", "keep_best"):
            if getattr(self, name) is not None and not has_validation:
                raise InputError(
                    f"trainer.{name}: needs validation data; add a section validation, or leave "
                    "it out"
                )

    def _record(self, batches: BatchSource, validation: BatchSource | None) -> Record:
        parts = {"data": batches, "validation": validation}
        settings = {
            section: {name: getattr(part, name) for name in BATCHED if hasattr(part, name)}
            for section, part in parts.items()
            if part is not None
        }
        callbacks = [type(one).__name__ for one in self.callbacks]
        own = {**asdict(replace(self, callbacks=[])), "callbacks": callbacks}
        return Record({"trainer": own, **settings}, fingerprints(parts))

    def _go(
        self,
        run: Run,
        validation: BatchSource | None,
        resume: bool,
        allow_changed: Collection[str],
        preview: Preview | None,
    ) -> None:
        if validation is not None:  # fails now rather than hours from now
            validation.batch(0, run.engine.process_index, run.engine.num_processes)
        with run.alone():
            run.begin(resume, allow_changed)
            if validation is not None:
                run.check_metrics(validation)
            with run.log:
                try:
                    self._steps(run, validation, preview)
                except CallbackError:
                    if run.step > run.saved:
                        run.save()
                    raise
                run.finish()

    def _steps(self, run: Run, validation: BatchSource | None, preview: Preview | None) -> None:
        run.call("on_train_begin")
        with interruptions() as signal:
            for step in run.steps_to_go():
                run.advance(step)
                if step % self.validate_every == 0 or step == self.steps:
                    run.look(validation, preview)
                ending = step == self.steps or run.stops_early()
                stopping = run.any_process(signal.raised)
                if step % self.save_every == 0 or ending or stopping:
                    run.save()
                if stopping:
                    raise Interrupted(signal.number)
                if ending:
                    break


@dataclass(frozen=True)
class Outcome:
    """Result of training.

    Attributes:
        step: number of steps done.
        losses: last logged means, by name.
        leads: whether this process is the only or the first one: the one to write files.
        record: recipe and data of the run, and their changes.
    """

    step: int
    losses: dict[str, float] = field(default_factory=dict)
    leads: bool = True
    record: Record = field(default_factory=lambda: Record({}, {}))

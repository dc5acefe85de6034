"""The updates of a run's weights: the network's losses, their gradients, optimizer and average."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate.utils import DistributedType, gather_object
from torch import Tensor, nn

from multidiff.core.devices import finest_dtype
from multidiff.core.random import BatchRows, mixed_seed
from multidiff.data.batches import examples_in, moved_batch
from multidiff.training.checkpoints import Checkpoint
from multidiff.training.ema import MovingAverage
from multidiff.training.engine import StepDraws, begun_engine
from multidiff.training.lr_schedule import rate_at
from multidiff.training.modes import Modes
from multidiff.training.objective import Losses, parts_of_mean, total
from multidiff.training.optimizers import make_optimizer
from multidiff.training.posthoc_ema import PowerAverages
from multidiff.training.precision import HALVES, computes_in_bfloat16
from multidiff.training.recomputation import begin_checkpointing, end_checkpointing
from multidiff.training.scaling import LossScaler
from multidiff.training.shards import gathered_weights, keep_precision, put_whole
from multidiff.utils.errors import InputError

if TYPE_CHECKING:
    from multidiff.training.trainer import Trainer

# Streams of random numbers that must not overlap.
WEIGHTS, NOISE, HELD_OUT, CALLBACKS = 2, 3, 4, 5


class Updates:
    """A task, its optimizer and its moving average.

    Args:
        plan: training settings.
        task: task to train.
    """

    def __init__(self, plan: Trainer, task: nn.Module):
        self.plan = plan
        self.engine = begun_engine()
        self.precision = plan.precision if plan.precision == "fp16" else "fp32"
        # One process that does not gain decides for all of them.
        if not self.any_process(not computes_in_bfloat16(plan.precision, task)):
            self.precision = "bf16"
        self.scaler = self._scaler()
        keep_precision(getattr(self.engine.state, "fsdp_plugin", None))
        self._checkpointed = begin_checkpointing(task) if plan.gradient_checkpointing else []
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
        kept = plan.posthoc_ema
        self.powers = None if kept is None else PowerAverages(kept, self.task)

    def _scaler(self) -> LossScaler | None:
        if self.precision != "fp16":
            return None
        if self.engine.distributed_type == DistributedType.FSDP:
            raise InputError("trainer.precision=fp16: not with FSDP; use bf16")
        return LossScaler(self.engine.device.type)

    def _keep_single_precision(self, found: Checkpoint) -> None:
        """Let ``auto`` go on in float32 where a run began in it, on whatever CPU."""
        began = found.numbers.get("precision", self.precision)
        if self.plan.precision == "auto" and self.engine.device.type == "cpu" and began == "fp32":
            self.precision = "fp32"

    def finish(self) -> None:
        """Put the averaged weights into the task, ready for sampling."""
        end_checkpointing(self._checkpointed)
        self.modes.finish()
        for name, value in self.average.shadow.items():
            put_whole(self.task, name, value)
        self.engine.wait_for_everyone()

    def rate_factor(self, step: int) -> float:
        """Return the factor on the learning rate at a step (from 1)."""
        plan = self.plan
        return rate_at(step - 1, plan.steps, plan.warmup_steps, plan.decay, plan.decay_from)

    def update(
        self, step: int, batches: Iterator[dict[str, Any]], factor: float
    ) -> tuple[list[str], dict[str, Tensor]]:
        """Make one update of the weights.

        Args:
            step: number of the step, from 1.
            batches: iterator of the batches to come.
            factor: factor on the learning rate.

        Returns:
            Names of the examples, and the losses with the gradient's norm, unless it overflowed
            in float16.
        """
        plan = self.plan
        self.modes.train()
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
                    batch = next(batches)
                    names += _names(batch)
                    number = (step - 1) * plan.gradient_accumulation_steps + micro
                    losses = computed(lambda b=batch, n=number: self._losses_of(b, NOISE, n))
                    losses = parts_of_mean(losses, plan.gradient_accumulation_steps)
                    loss = total(losses)
                    self._backward(loss if self.scaler is None else self.scaler.scaled(loss))
                for name, loss in losses.items():
                    loss = loss.detach()
                    sums[name] = sums[name] + loss if name in sums else loss
        norm = self._step_optimizer()
        self.average.update()
        if self.powers is not None:
            self.powers.update(step)
        return names, sums if norm is None else {**sums, "gradient": norm.detach()}

    def _step_optimizer(self) -> Tensor | None:
        """Clip the gradients and update the weights; return the norm, None if it overflowed."""
        if self.scaler is None:
            norm = torch.as_tensor(self._clip_gradients())
            self.optimizer.step()
            return norm
        optimizer = self._bare_optimizer()
        self.scaler.unscale(optimizer)
        norm = torch.as_tensor(self._clip_gradients())
        return norm if self.scaler.step(optimizer) else None

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
        engine, count = self.engine, examples_in(batch)
        sent = moved_batch(batch, engine.device)
        rng = BatchRows(
            mixed_seed(self.plan.seed, use, number),
            count,
            first=engine.process_index * count,
            total=engine.num_processes * count,
            device=engine.device,
        )
        if self.precision == "fp32":
            return self.losses(sent, rng)
        with torch.autocast(engine.device.type, HALVES[self.precision]):
            return self.losses(sent, rng)

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """Put the averaged weights in place, in eval mode and without gradients."""
        self.modes.eval()
        with self.average.in_place(), gathered_weights(self.losses), torch.no_grad():
            yield

    def _reduced(self, value: Tensor, how: str) -> float:
        return float(cast(Tensor, self.engine.reduce(value, how)))

    def _means(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return means over all processes, of which some may lack some of the names.

        Args:
            sums: a sum and its number of terms by name.
        """
        found, device = dict(sums), self.engine.device
        if self.engine.num_processes > 1:
            names = dict.fromkeys(gather_object([*sums]))  # in one order: each call is collective
            own = {name: sums.get(name, torch.zeros(2)) for name in names}
            own = {name: one.to(device, finest_dtype(device)) for name, one in own.items()}
            found = {n: cast(Tensor, self.engine.reduce(one, "sum")) for n, one in own.items()}
        pairs = {name: one.tolist() for name, one in found.items()}
        return {name: total / count for name, (total, count) in pairs.items()}

    def any_process(self, here: bool) -> bool:
        """Return whether something is true in any process; all get the same answer."""
        if self.engine.num_processes == 1:
            return here
        flag = torch.tensor(float(here), device=self.engine.device)
        return self._reduced(flag, "sum") > 0

    def _bare_optimizer(self) -> torch.optim.Optimizer:
        return getattr(self.optimizer, "optimizer", self.optimizer)


def _names(batch: dict[str, Any]) -> list[str]:
    return [str(name) for name in batch.get("name", [])]

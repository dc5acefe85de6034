"""Text models by Gaussian diffusion of embeddings, and what people do with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from multidiff.core.control import Controlled
from multidiff.core.gaussian import GaussianProcess
from multidiff.core.guidance import ClassifierFreeGuidance
from multidiff.core.projections import in_turn, keep_known
from multidiff.core.protocols import Solver
from multidiff.core.randomness import generators, uniform
from multidiff.core.sampling import Step, sample
from multidiff.core.self_conditioning import Remembering, SelfConditioning
from multidiff.core.task import DiffusionTask
from multidiff.core.times import TimeGrid
from multidiff.errors import InputError
from multidiff.text.denoiser import TextDenoiser
from multidiff.text.embedded import UNWRITTEN, EmbeddedDomain
from multidiff.text.metrics import minimum_bayes_risk
from multidiff.text.orders import (
    Control,
    TextOrder,
    batches_of,
    candidate_seeds,
    canvas_of,
    laid_out,
)
from multidiff.text.vocabulary import PAD
from multidiff.text.walk import TextWalk


@dataclass(frozen=True)
class _Plan:
    """How the texts of one call are made, once it is checked."""

    times: TimeGrid
    solver: Solver
    guidance: float
    temperature: float
    control: Control | None


class TextDiffusion(nn.Module):
    """A model of texts.

    Args:
        domain: texts as states.
        process: what the denoiser is trained on.
        denoiser: the network.
        walk: how to sample where nobody says otherwise.
        drop_condition: share of the meanings that training leaves out, for guidance.
        self_conditioning: how the denoiser is told its last estimate, if it reads that.
        classifier: name of the model that controls this one where no other is named.
    """

    def __init__(
        self,
        domain: EmbeddedDomain,
        process: GaussianProcess,
        denoiser: TextDenoiser,
        walk: TextWalk | None = None,
        drop_condition: float = 0.0,
        self_conditioning: float = 0.5,
        classifier: str | None = None,
    ):
        super().__init__()
        if denoiser.state_width != domain.width:
            raise ValueError(
                f"the denoiser's state_width {denoiser.state_width} is not the domain's width, "
                f"{domain.width}"
            )
        sizes = [0 if one is None else one.size for one in (domain.meanings, denoiser.source)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"the denoiser's sources are {sizes[1]}, the meanings have {sizes[0]} numbers; "
                f"set sources: {sizes[0]}"
            )
        self.domain, self.process, self.denoiser = domain, process, denoiser
        self.walk = TextWalk() if walk is None else walk
        self.drop_condition, self.classifier = drop_condition, classifier
        self.memory = SelfConditioning(self_conditioning) if denoiser.self_conditioned else None
        self.name = ""
        self.walk.solver_named(None)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.domain.table.device

    @property
    def companions(self) -> dict[str, str]:
        """Models that commands use beside it where no others are named."""
        return {} if self.classifier is None else {"classifier": self.classifier}

    def task(self) -> DiffusionTask:
        """What a trainer trains."""
        return DiffusionTask(
            self.domain, self.process, self.denoiser, self.drop_condition, self.memory
        )

    def facts(self) -> dict[str, str]:
        """What the weights were made for."""
        return {"kind": "texts"}

    def files(self) -> dict[str, str]:
        """What must lie beside the weights."""
        return self.domain.files()

    def settle(self, folder: Path) -> None:
        """Take that up, and the folder's name."""
        self.name = folder.name
        self.domain.settle(folder)

    @torch.no_grad()
    def generate(
        self,
        orders: Sequence[TextOrder],
        *,
        steps: int | None = None,
        solver: str | None = None,
        guidance: float | None = None,
        temperature: float | None = None,
        control: Control | None = None,
        seed: int | Sequence[int] = 0,
        candidates: int = 1,
        batch_size: int = 64,
        on_step: Callable[[Step], None] | None = None,
    ) -> list[str]:
        """Texts, one for each order.

        Args:
            orders: what is asked of each.
            steps: of the solver.
            solver: its name.
            guidance: scale, for orders with a meaning; 1 is off.
            temperature: of the words that clamping chooses among.
            control: what they are pulled towards.
            seed: of the noise: text ``i`` has ``seed + i``, or the i-th of several. A text
                depends on its own alone, whatever is made beside it.
            candidates: drawn for each text, of which the one most like the others is taken
                (minimum Bayes risk, Kumar & Byrne 2004).
            batch_size: texts at a time.
            on_step: told after each step of each batch.

        Raises:
            InputError: if the model cannot do what is asked.
        """
        seeds = [seed + i for i in range(len(orders))] if isinstance(seed, int) else list(seed)
        if candidates < 1:
            raise InputError(f"--candidates {candidates}: at least 1")
        plan = self._checked(steps, solver, guidance, temperature, control)
        every = [order for order in orders for _ in range(candidates)]
        rngs = generators([n for seed in seeds for n in candidate_seeds(seed, candidates)])
        texts = self._drawn(every, rngs, plan, batch_size, on_step)
        groups = [texts[i : i + candidates] for i in range(0, len(texts), candidates)]
        return [self._best(group) for group in groups]

    def _best(self, candidates: list[str]) -> str:
        if len(candidates) == 1:
            return candidates[0]
        words = [self.domain.vocabulary.numbers(text) for text in candidates]
        return candidates[minimum_bayes_risk(words)]

    def _drawn(
        self,
        orders: list[TextOrder],
        rngs: list[torch.Generator],
        plan: _Plan,
        batch_size: int,
        on_step: Callable[[Step], None] | None,
    ) -> list[str]:
        lengths = [self._length(order, rng) for order, rng in zip(orders, rngs, strict=True)]
        texts = [""] * len(orders)
        for rows in batches_of(lengths, batch_size):
            made = self._made(
                [orders[i] for i in rows],
                [lengths[i] for i in rows],
                [rngs[i] for i in rows],
                plan,
                on_step,
            )
            for row, text in zip(rows, made, strict=True):
                texts[row] = text
        return texts

    def _made(
        self,
        orders: list[TextOrder],
        lengths: list[int],
        rng: list[torch.Generator],
        plan: _Plan,
        on_step: Callable[[Step], None] | None,
    ) -> list[str]:
        """One batch of texts, all on canvases of one size."""
        canvas = min(canvas_of(lengths[0]), self.domain.length)
        tokens, is_known = laid_out(orders, lengths, canvas)
        tokens, is_known = tokens.to(self.device), is_known.to(self.device)
        real = torch.arange(canvas, device=self.device) < torch.tensor(
            lengths, device=self.device
        ).unsqueeze(1)
        known = self.domain.embed(tokens)
        clamp = partial(
            self.domain.clamped,
            clamp=self.domain.clamp,
            temperature=plan.temperature,
            unwritten=UNWRITTEN,
        )
        project = in_turn(clamp, keep_known(known, is_known[..., None]))
        denoiser = self._guided(plan, orders)
        if self.memory is not None:
            denoiser = Remembering(denoiser, self.memory, project, known * is_known[..., None])
            project = denoiser.project
        condition = self.domain.condition([order.meaning for order in orders], real)
        state = sample(
            self.process,
            denoiser,
            self._controlled(plan, real),
            (len(orders), canvas, self.domain.width),
            plan.times,
            condition=condition,
            project=project,
            rng=rng,
            device=self.device,
            on_step=on_step,
        )
        return self._written(state, tokens, is_known, real)

    def _written(self, state: Tensor, tokens: Tensor, is_known: Tensor, real: Tensor) -> list[str]:
        """The words of a state; those that were known are themselves, whatever the head says."""
        logits = self.domain.logits(state)
        logits[..., list(UNWRITTEN)] = -torch.inf
        numbers = torch.where(is_known, tokens, logits.argmax(dim=-1))
        numbers = torch.where(real, numbers, PAD)
        return [self.domain.vocabulary.text(row) for row in numbers.tolist()]

    def _guided(self, plan: _Plan, orders: list[TextOrder]) -> Any:
        if plan.guidance == 1 or not any(order.meaning for order in orders):
            return self.denoiser
        return ClassifierFreeGuidance(self.denoiser, plan.guidance)

    def _controlled(self, plan: _Plan, real: Tensor) -> Solver:
        control = plan.control
        if control is None or not control.wanted:
            return plan.solver
        wanted = control.classifier.wanted(control.wanted, real)
        return Controlled(plan.solver, wanted, control.updates, control.rate, control.fluency)

    def _length(self, order: TextOrder, rng: torch.Generator) -> int:
        """How many tokens a text has, END counted."""
        if order.length is None:
            return self._drawn_length(order, rng)
        if not 1 <= order.length < self.domain.length:
            raise InputError(
                f"a length of {order.length}: this model writes 1 to {self.domain.length - 1} words"
            )
        return order.length + 1

    def _drawn_length(self, order: TextOrder, rng: torch.Generator) -> int:
        source = None
        if order.meaning and self.domain.meanings is not None:
            told = self.domain.meanings.partial(order.meaning)
            source = torch.tensor([told], device=self.device)
        logits = self.domain.length_logits(1, source)[0].double().cpu()
        # Room for a word, and for all that is known.
        logits[: 2 + max(order.known, default=0)] = -torch.inf
        edges = torch.softmax(logits, dim=0).cumsum(0)
        return int(torch.searchsorted(edges, uniform((1,), rng) * edges[-1], right=True))

    def _checked(
        self,
        steps: int | None,
        solver: str | None,
        guidance: float | None,
        temperature: float | None,
        control: Control | None,
    ) -> _Plan:
        if control is not None:
            control.classifier.check_fits(self.domain)
        return _Plan(
            self.walk.times(steps, self.process.schedule.num_steps),
            self.walk.solver_named(solver),
            self.walk.checked_guidance(guidance),
            self.walk.checked_temperature(temperature),
            control,
        )

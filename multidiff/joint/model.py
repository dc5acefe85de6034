"""A model of several media: any of them given, any of them generated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from multidiff.core.discrete.absorbing import MaskProcess
from multidiff.core.gaussian.timesteps import uniform_timesteps
from multidiff.core.joint.guidance import JointGuidance
from multidiff.core.joint.level import Held, JointSchedule
from multidiff.core.joint.process import JointProcess
from multidiff.core.joint.sampler import JointSampler, sample_joint
from multidiff.core.joint.task import JointTask
from multidiff.core.random import generators
from multidiff.joint.denoiser import JointTokenDenoiser
from multidiff.joint.domain import StreamDomain
from multidiff.joint.records import Cell
from multidiff.joint.sampling_config import NONE, TOGETHER, JointSamplingConfig
from multidiff.joint.streams import TokenStream
from multidiff.models.base import DomainModel
from multidiff.models.requests import Seed, checked_seeds
from multidiff.utils.errors import InputError
from multidiff.utils.names import suggestion

OnBatch = Callable[[int, dict[str, list[Any]]], None]
Tokens = dict[str, Int[Tensor, "batch length"]]


@dataclass(frozen=True)
class _Plan:
    """One call of ``generate``, checked.

    Attributes:
        media: given media by name, one for all samples or one for each.
        known: their tokens ``(samples, length)``, masked where they are to be generated.
        make: media to generate, in order, the bridge among them.
        shown: media that are returned.
        config: options.
    """

    media: Mapping[str, Sequence[Any]]
    known: Tokens
    make: tuple[str, ...]
    shown: tuple[str, ...]
    config: JointSamplingConfig


class JointModel(DomainModel):
    """Several media as one masked process with a noise level for each.

    Args:
        streams: media by their names, each with its tokens.
        process: a masked process for each medium.
        denoiser: the network.
        sampling: default sampling options.

    Raises:
        ValueError: if these do not fit each other.
    """

    pipeline_tag = "any-to-any"
    domain: StreamDomain
    writes_files = True  # even if the lines about them are not read

    def __init__(
        self,
        streams: dict[str, TokenStream],
        process: JointProcess,
        denoiser: JointTokenDenoiser,
        sampling: JointSamplingConfig | None = None,
    ):
        wanted = {name: (one.size, one.length) for name, one in streams.items()}
        found = {name: tuple(one) for name, one in denoiser.parts.items()}
        if wanted != found:
            raise ValueError(f"denoiser.parts {found}: the streams have {wanted}; make them alike")
        sizes = {name: getattr(one, "size", None) for name, one in process.parts.items()}
        if sizes != {name: size for name, (size, _) in wanted.items()}:
            raise ValueError(f"process.parts of sizes {sizes}: the streams have {wanted}")
        if not all(isinstance(one, MaskProcess) for one in process.parts.values()):
            raise ValueError("process.parts: each must be a MaskProcess")
        super().__init__(StreamDomain(streams))
        self.process, self.denoiser = process, denoiser
        self.sampling = JointSamplingConfig() if sampling is None else sampling
        self._order(self.sampling, tuple(streams))
        self._check_guidance(self.sampling)

    def task(self) -> JointTask:
        """Return the training task."""
        return JointTask(self.domain, self.process, self.denoiser)

    def metadata(self) -> dict[str, str]:
        """Return the properties that the weights depend on."""
        parts = " ".join(f"{n}:{size}x{long}" for n, (size, long) in self.denoiser.parts.items())
        return {"kind": "joint tokens", "media": parts}

    @torch.no_grad()
    def generate(
        self,
        given: Mapping[str, Any] | None = None,
        make: Sequence[str] = (),
        *,
        num: int | None = None,
        keep: Mapping[str, float] | None = None,
        seed: Seed = 0,
        config: JointSamplingConfig | None = None,
        batch_size: int = 64,
        on_batch: OnBatch | None = None,
        **overrides: Any,
    ) -> dict[str, list[Any]]:
        """Generate media, with others given.

        Args:
            given: medium by name: a path, bytes of a file, a text, or a tensor (an image as bytes
                ``(channels, height, width)``, samples of a sound at the model's rate); or a list
                with one for each sample.
            make: media to generate; by default all that are not given.
            num: number of samples; 1, or the number of those given in lists.
            keep: fraction of a given medium, from its beginning, that is kept; the rest is
                generated, up to the model's length. Images begin at the top; what fills up short
                sounds and texts is no part of them.
            seed: random seed of the first sample; sample ``i`` uses ``seed + i``, or the i-th of
                several. None draws one from the system. A sample depends only on its own seed.
            config: sampling options; the model's own, ``sampling``, by default.
            batch_size: number of samples in a batch.
            on_batch: function called after each batch with the index of its first sample and its
                media.
            **overrides: single options that replace the config's, by the names of
                :class:`~multidiff.joint.sampling_config.JointSamplingConfig`.

        Returns:
            A list of each medium that is given or made, with one for each sample. Given media
            are returned as they were read, and completed if parts of them were unknown.

        Raises:
            InputError: if the model cannot fulfil the request.
            TypeError: if an option is unknown.
        """
        if batch_size < 1:
            raise InputError(f"batch_size {batch_size}: must be at least 1")
        config = (config or self.sampling).replace(**overrides)
        plan = self._plan(given or {}, tuple(make), num, keep or {}, config)
        count = len(next(iter(plan.known.values())))
        seeds = checked_seeds(seed, count)
        found: dict[str, list[Any]] = {name: [] for name in plan.shown}
        for first in range(0, count, batch_size):
            rows = slice(first, first + batch_size)
            tokens = self.generate_tokens(
                {name: one[rows] for name, one in plan.known.items()},
                plan.make,
                seeds[rows],
                plan.config,
            )
            made = {name: self._media(plan, name, tokens, rows, seeds[rows]) for name in plan.shown}
            for name, media in made.items():
                found[name] += media
            if on_batch is not None:
                on_batch(first, made)
        return found

    def _media(
        self, plan: _Plan, name: str, tokens: Tokens, rows: slice, seeds: Sequence[int]
    ) -> list[Any]:
        if name in plan.make:
            return self.domain[name].decode(tokens[name], seeds)
        return [*plan.media[name][rows]]

    def generate_tokens(
        self,
        known: Tokens,
        make: Sequence[str],
        seeds: Sequence[int],
        config: JointSamplingConfig | None = None,
    ) -> Tokens:
        """Generate tokens, one medium after the other, or all together if the order says so.

        Args:
            known: tokens of all media, ``(batch, length)``; masked where they are not known.
                Known tokens are returned unchanged.
            make: media whose masked tokens are generated, in order.
            seeds: random seed of each sample.
            config: sampling options.
        """
        config = config or self.sampling
        rng = generators(seeds)
        state = {name: one.to(self.device) for name, one in known.items()}
        groups = [tuple(make)] if config.order == TOGETHER else [(name,) for name in make]
        for group in groups:
            state = self._made(state, group, rng, config)
        return state

    def _made(
        self, state: Tokens, group: Sequence[str], rng: Any, config: JointSamplingConfig
    ) -> Tokens:
        """Return the state with the masked tokens of some media generated."""
        sizes = {name: self.domain[name].size for name in self.domain}
        hidden = {n: bool((state[n] == sizes[n]).all()) for n in sizes if n not in group}
        steps = min(config.steps, max(self.domain[name].length for name in group))
        times = {
            name: uniform_timesteps(steps) if name in group else Held(float(hidden[name]))
            for name in self.domain
        }
        seen = tuple(name for name, one in hidden.items() if not one)
        denoiser: Any = self.denoiser
        # Media that are made together share one evaluation, and so one scale.
        own = config.guidance_scales() if len(group) == 1 else {}
        scale = own.get(group[0], config.guidance_scale)
        if seen and scale != 1:
            denoiser = JointGuidance(denoiser, self.process, {seen: scale})
        samplers = {n: config.unmasking_sampler(self.domain[n].length, bool(seen)) for n in group}
        return sample_joint(
            self.process,
            denoiser,
            JointSampler(samplers),
            {},
            JointSchedule(times),
            start=state,
            rng=rng,
            device=self.device,
        )

    # ------------------------------------------------------------------------- requests

    def _plan(
        self,
        given: Mapping[str, Any],
        make: tuple[str, ...],
        num: int | None,
        keep: Mapping[str, float],
        config: JointSamplingConfig,
    ) -> _Plan:
        """Check a request."""
        for name in (*given, *make, *keep):
            self._check_medium(name)
        self._check_guidance(config)
        for name, one in keep.items():
            if name not in given or not 0 <= one <= 1:
                raise InputError(f"keep {name}={one:g}: a fraction from 0 to 1 of a given medium")
        media, known = self._given(given, keep, num)
        partial = tuple(n for n in media if bool((known[n] == self.domain[n].size).any()))
        twice = [name for name in make if name in given and name not in partial]
        if twice:
            raise InputError(f"{twice[0]}: is given and to be made; remove one of the two")
        wanted = make or tuple(name for name in self.domain if name not in given)
        wanted = (*dict.fromkeys((*partial, *wanted)),)
        if not wanted:
            raise InputError("nothing to make: all media are given; leave one out")
        bridge = config.bridge
        if bridge != NONE:
            self._check_medium(bridge)
        is_bridged = given and bridge != NONE and bridge not in (*given, *wanted)
        making = (*wanted, bridge) if is_bridged else wanted
        return _Plan(
            media, known, self._order(config, making), (*dict.fromkeys((*given, *wanted)),), config
        )

    def _given(
        self, given: Mapping[str, Any], keep: Mapping[str, float], num: int | None
    ) -> tuple[dict[str, list[Any]], Tokens]:
        """Return the given media and the known tokens of all media, one for each sample."""
        lists = {name: one if isinstance(one, list) else [one] for name, one in given.items()}
        counts = {len(one) for one in lists.values()} - {1}
        if num is not None and num < 1:
            raise InputError(f"num {num}: must be at least 1")
        count = max(counts, default=1) if num is None else num
        if counts - {count} or count < 1:
            listed = ", ".join(f"{name} {len(one)}" for name, one in lists.items())
            raise InputError(f"given {listed} for {count} samples: give one, or one for each")
        media, known = {}, {}
        for name in self.domain:
            stream = self.domain[name]
            if name not in lists:
                known[name] = torch.full((count, stream.length), stream.size)
                continue
            pairs = [stream.known(_cell(one, name)) for one in lists[name]]
            media[name] = [medium for medium, _ in pairs] * (count // len(pairs))
            tokens = torch.stack([own.cpu() for _, own in pairs])
            for row, (medium, _) in zip(tokens, pairs, strict=True):
                own = stream.own_length(medium)
                kept = round(keep.get(name, 1.0) * own)
                # What fills a whole medium up to the length is known too: it says where it ends.
                row[kept if kept < own else stream.length :] = stream.size
            known[name] = tokens.repeat(count // len(pairs), 1)
        return media, known

    def _order(self, config: JointSamplingConfig, media: tuple[str, ...]) -> tuple[str, ...]:
        """Return media in the order in which they are generated."""
        if config.order == TOGETHER:
            return media
        first = [one.strip() for one in config.order.split(",") if one.strip()]
        for name in first:
            self._check_medium(name)
        return tuple(
            sorted(media, key=lambda name: (name not in first, [*first, name].index(name)))
        )

    def _check_guidance(self, config: JointSamplingConfig) -> None:
        scales = config.guidance_scales()
        for name in scales:
            self._check_medium(name)
        if "media_guidance" in config.overrides and config.order == TOGETHER:
            raise InputError(
                "--media-guidance: media made together share one --guidance-scale; set that, or "
                "an order"
            )

    def _check_medium(self, name: str) -> None:
        if name not in [*self.domain]:
            raise InputError(
                f"{name}: the model has no such medium: {suggestion(name, self.domain)}"
            )


def _cell(value: Any, name: str) -> Cell:
    """Return a medium of a request as a table's cell."""
    is_named = isinstance(value, Cell)
    return value if is_named else Cell(value, str(value)[:60] if isinstance(value, str) else name)

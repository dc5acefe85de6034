"""Redirection of draws that name no generator, such as those of dropout.

Seeding the default generator changes what the caller and other threads draw. Inside
:class:`DrawsFrom` such draws come from the given generator, in this thread alone; the default
one is neither read nor advanced.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# Functions with an argument for the generator.
NAMING = {
    torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal, torch.bernoulli,
    torch.multinomial, torch.poisson, torch.binomial,
    Tensor.uniform_, Tensor.normal_, Tensor.bernoulli_, Tensor.random_, Tensor.exponential_,
    Tensor.geometric_, Tensor.cauchy_, Tensor.log_normal_, Tensor.multinomial, Tensor.bernoulli,
    nn.init.uniform_, nn.init.normal_, nn.init.trunc_normal_, nn.init.kaiming_uniform_,
}  # fmt: skip
# Functions without one, and without a plain form that has one.
NAMELESS = {
    torch.rrelu, torch.rrelu_, F.rrelu, F.alpha_dropout, F.feature_alpha_dropout, F.dropout1d,
    F.dropout2d, F.dropout3d, F.gumbel_softmax, F.scaled_dot_product_attention,
    F.multi_head_attention_forward, torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu,
    torch.randint_like, torch.alpha_dropout, torch.feature_dropout, torch.native_dropout,
}  # fmt: skip
_DEFAULT = threading.RLock()
_HERE = threading.local()  # generators of the contexts that are entered, and whether draws repeat
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def draws_nothing(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Run a function outside of :class:`DrawsFrom`, which need not look at each of its calls.

    For arithmetic that a training step repeats: a look costs half of what a small operation does.
    """

    @functools.wraps(function)
    def called(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with torch._C.DisableTorchFunction():
            return function(*args, **kwargs)

    return called


class InsideCheckpoint(RuntimeError):
    """A draw inside ``torch.utils.checkpoint``, which repeats it from the default generator."""


class DrawsFrom(TorchFunctionMode):
    """Context in which draws that name no generator come from this one.

    Args:
        generator: generator on the device where the draws are made.

    Raises:
        InsideCheckpoint: at a draw inside ``torch.utils.checkpoint``: see
            :func:`default_generator_seeded`.
    """

    def __init__(self, generator: torch.Generator):
        super().__init__()
        self.generator = generator

    def __enter__(self) -> Any:
        _HERE.__dict__.setdefault("generators", []).append(self.generator)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        _HERE.generators.pop()
        super().__exit__(*error)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function, with the generator if it draws."""
        kwargs = kwargs or {}
        how = _HOW.get(func)
        return func(*args, **kwargs) if how is None else how(self, func, args, kwargs)

    def _named(self, func: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
        """Call a function with the generator, unless one is passed already."""
        if kwargs.get("generator") is not None or any(
            isinstance(one, torch.Generator) for one in args
        ):
            return func(*args, **kwargs)
        _refuse_checkpoints()
        return func(*args, **{**kwargs, "generator": self.generator})

    def _rewritten(self, func: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
        """Call our own function instead of torch's."""
        return _OWN[func](self.generator, func, *args, **kwargs)

    def _exchanged(self, func: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
        """Call a function while the default generator has the state of this one."""
        with _DEFAULT:
            default = _default_on(self.generator.device)
            before, own = default.get_state(), self.generator.get_state()
            default.set_state(own)
            try:
                return func(*args, **kwargs)
            finally:
                after = default.get_state()
                default.set_state(before)
                if not torch.equal(after, own):
                    self.generator.set_state(after)
                    _refuse_checkpoints()


def checkpointed(function: Callable[..., Result], *args: Any) -> Result:
    """Call a function whose activations are not kept but computed again in the backward pass.

    Gradient checkpointing (Chen et al. 2016), by ``torch.utils.checkpoint`` without reentrance.
    Inside :class:`DrawsFrom` the second call repeats the draws of the first.

    Args:
        function: function that returns tensors.
        args: its arguments.
    """
    if not torch.is_grad_enabled():
        return function(*args)
    run: Any = functools.partial(torch.utils.checkpoint.checkpoint, use_reentrant=False)
    generators = _HERE.__dict__.get("generators")
    if not generators:
        return run(function, *args)
    generator, state = generators[-1], generators[-1].get_state()

    def contexts() -> tuple[Any, Any]:
        return _repeatable(), _drawn_again(generator.device, state)

    return run(function, *args, preserve_rng_state=False, context_fn=contexts)


@contextmanager
def _repeatable() -> Iterator[None]:
    """Allow draws inside a checkpoint, since they will be repeated."""
    before = _HERE.__dict__.get("repeatable", False)
    _HERE.repeatable = True
    try:
        yield
    finally:
        _HERE.repeatable = before


@contextmanager
def _drawn_again(device: torch.device, state: Tensor) -> Iterator[None]:
    """Draw from a generator in a state; a backward pass may run in another thread."""
    generator = torch.Generator(device)
    generator.set_state(state)
    with _repeatable(), DrawsFrom(generator):
        yield


@contextmanager
def default_generator_seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the process's default generator for this block, and restore it afterwards.

    Needed for code that repeats draws from it: compiled code and ``torch.utils.checkpoint``.
    Other threads that draw meanwhile are affected; other such blocks wait.
    """
    with _DEFAULT:
        kinds = {_default_on(device), torch.default_generator}
        before = [(one, one.get_state()) for one in kinds]
        try:
            for one in kinds:
                one.manual_seed(seed)
            yield
        finally:
            for one, state in before:
                one.set_state(state)


def _default_on(device: torch.device) -> torch.Generator:
    if device.type != "cuda":
        return torch.default_generator
    torch.cuda.init()
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.default_generators[index]


def _refuse_checkpoints() -> None:
    if _HERE.__dict__.get("repeatable"):
        return
    frame, inside = sys._getframe(2), torch.utils.checkpoint.__file__
    while frame is not None:
        if frame.f_code.co_filename == inside:
            raise InsideCheckpoint("draws inside torch.utils.checkpoint cannot be redirected")
        frame = frame.f_back


def _dropout(
    generator: torch.Generator,
    func: Callable[..., Tensor],
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> Tensor:
    """Apply torch's own CPU formula, draw for draw."""
    if not training or not 0 < p < 1:
        return func(input, p, training, inplace)
    _refuse_checkpoints()
    noise = torch.empty_like(input).bernoulli_(1 - p, generator=generator).div_(1 - p)
    return input.mul_(noise) if inplace else input * noise


def _uniform_like(
    generator: torch.Generator, func: Callable[..., Tensor], input: Tensor, **kwargs: Any
) -> Tensor:
    if kwargs.pop("generator", None) is not None:
        raise NotImplementedError("rand_like takes no generator: use rand with generator=...")
    _refuse_checkpoints()
    return _filled(input, kwargs, lambda x: x.uniform_(generator=generator))


def _normal_like(
    generator: torch.Generator, func: Callable[..., Tensor], input: Tensor, **kwargs: Any
) -> Tensor:
    if kwargs.pop("generator", None) is not None:
        raise NotImplementedError("randn_like takes no generator: use randn with generator=...")
    _refuse_checkpoints()
    return _filled(input, kwargs, lambda x: x.normal_(generator=generator))


def _filled(input: Tensor, kwargs: dict[str, Any], fill: Callable[[Tensor], Tensor]) -> Tensor:
    wants = kwargs.pop("requires_grad", False)
    return fill(torch.empty_like(input, **kwargs)).requires_grad_(wants)


_OWN: dict[Any, Callable[..., Tensor]] = {
    F.dropout: _dropout,
    torch.dropout: _dropout,
    torch.rand_like: _uniform_like,
    torch.randn_like: _normal_like,
}
_HOW: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys(NAMELESS, DrawsFrom._exchanged),
    **dict.fromkeys(NAMING, DrawsFrom._named),
    **dict.fromkeys(_OWN, DrawsFrom._rewritten),
}

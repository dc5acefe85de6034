"""The run-time checker of the shapes and types that signatures promise.

A check costs more than many a function, and a loop calls each a thousand times alike: those of a
function's first calls in a test are checked, and then every tenth.
"""

from contextlib import contextmanager
from functools import partial, wraps

import jaxtyping
from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as in PEP 484
FIRST, EVERY = 20, 10
calls: dict[object, int] = {}  # so far in the test
jaxtyped = jaxtyping.jaxtyped


def check_sparingly():
    """Replace the decorator that the import hook writes, before it does."""
    jaxtyping.jaxtyped = _decorate


def _is_due(one):
    calls[one] = number = calls.get(one, 0) + 1
    return number <= FIRST or number % EVERY == 0


def _decorate(decorated=None, *, typechecker):
    if decorated is None:
        return partial(_decorate, typechecker=typechecker)
    if isinstance(decorated, type):
        plain = decorated.__init__
        made = jaxtyped(decorated, typechecker=typechecker)
        if made.__init__ is not plain:  # a dataclass
            made.__init__ = _sparingly(plain, made.__init__)
        return made
    if "<locals>" in decorated.__qualname__ and not _is_due((decorated.__code__, "made")):
        return decorated
    return _sparingly(decorated, jaxtyped(decorated, typechecker=typechecker))


def _sparingly(plain, full):
    code = plain.__code__

    @wraps(full)
    def call(*args, **kwargs):
        return (full if _is_due(code) else plain)(*args, **kwargs)

    return call


@contextmanager
def unchecked():
    """Signatures are not checked: for loops of hundreds of steps, each as the first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)

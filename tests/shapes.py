"""The run-time checker of the shapes and types that signatures promise."""

from contextlib import contextmanager

import jaxtyping
from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as in PEP 484


@contextmanager
def unchecked():
    """Signatures are not checked: for loops of hundreds of steps, each as the first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)

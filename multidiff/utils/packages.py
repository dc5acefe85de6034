"""Third-party packages that only some commands use, and what to do when one fails to import."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

from multidiff.utils.errors import InputError

# Exceptions of a package that is missing, broken, or built for another torch: shared
# libraries that do not load give OSError, operators that are not registered RuntimeError, and
# code compiled for another numpy ValueError.
BROKEN = (ImportError, OSError, RuntimeError, AttributeError, ValueError)
METRICS_EXTRA = 'pip install --upgrade "multidiff[metrics]"'
TTS_EXTRA = 'pip install --upgrade "multidiff[tts]"'
SERVE_EXTRA = 'pip install --upgrade "multidiff[serve]"'
LONGEST_REASON = 160


class PackageError(InputError):
    """A package is missing or broken: no input can be read, whichever comes next."""


@contextmanager
def needs(package: str, purpose: str, fix: str | None = None) -> Iterator[None]:
    """Import a package in the block; failures are reported in one line.

    Args:
        package: name of the package for pip.
        purpose: feature that needs it; begins the message.
        fix: command that installs a working version.

    Raises:
        PackageError: if the package is missing or does not load; the message names its version,
            that of torch, and the command that fixes it.
    """
    try:
        yield
    except BROKEN as error:
        raise PackageError(trouble(package, purpose, error, fix)) from error


def trouble(package: str, purpose: str, error: BaseException, fix: str | None = None) -> str:
    """Describe in one line why a package cannot be imported; see :func:`needs`."""
    found = version_of(package)
    if found is None:
        return f"{purpose} needs {package}, which is not installed: {fix or _install(package)}"
    reason = " ".join(str(error).split())[:LONGEST_REASON]
    beside = "" if package == "torch" else f" beside torch {version_of('torch')}"
    return (
        f"{purpose} needs {package}, but {package} {found} does not load{beside} ({reason}): "
        f"{fix or _install(package, '--upgrade')}"
    )


def unimportable(error: ImportError) -> str:
    """Describe in one line an import that failed anywhere.

    Raises:
        ImportError: the same, if a module of multidiff is missing, which is a bug of ours.
    """
    package = (error.name or "").partition(".")[0]
    if not package or package == "multidiff":
        raise error
    known = metadata.packages_distributions().get(package, [package])
    return trouble(known[0], "this command", error)


def version_of(package: str) -> str | None:
    """Return the installed version of a package, or None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _install(package: str, *options: str) -> str:
    return " ".join(["pip install", *options, package])

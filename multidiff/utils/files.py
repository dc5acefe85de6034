"""Atomic writes, and the names of files."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import resources
from pathlib import Path

from multidiff.utils.errors import InputError
from multidiff.utils.exchange import exchange_paths
from multidiff.utils.leftovers import aside_of, remove_abandoned, temporary_name
from multidiff.utils.locks import lock_folder

STARTER = "starter:"
REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than allowed",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EEXIST: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "its links form a circle",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open",
}


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` when the block succeeds.

    The file is written beside its destination and flushed to disk before the rename; if the block
    fails, nothing is left behind and the previous file stays.

    Raises:
        InputError: if the system refuses (full disk, permissions), naming the file and why.
    """
    partial = path.with_name(temporary_name(path.name, path.suffix))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent)
        yield partial
        flush_to_disk(partial)
        partial.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with suppress(OSError):  # if its folder does not exist, nothing was written either
            partial.unlink()


@contextmanager
def atomic_write_dir(path: Path, flush: bool = True) -> Iterator[Path]:
    """Yield a temporary folder that atomically replaces ``path`` when the block succeeds.

    The new folder is swapped with the old one in one step. Where the file system cannot do
    that, the old one is renamed aside first, and :func:`recovered` finds it there if the
    process is killed between the two renames.

    Args:
        path: the folder.
        flush: whether it must survive a power cut, for which the disk is waited for.

    Raises:
        InputError: if the system refuses, naming the folder and why.
    """
    path = path.resolve() if path.is_symlink() else path
    partial = path.with_name(temporary_name(path.name))
    try:
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        remove_abandoned(path.parent)
        yield partial
        for file in [*partial.rglob("*"), partial] if flush else ():
            flush_to_disk(file)
        _replace_folder(path, partial)
        if flush:
            flush_to_disk(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # the replaced folder, or an unfinished one


def _replace_folder(path: Path, new: Path) -> None:
    """Replace a folder by another; the old one has the new one's name afterwards."""
    aside = aside_of(path)
    if not path.exists():
        new.rename(path)
        shutil.rmtree(aside, ignore_errors=True)
    elif not exchange_paths(new, path):
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        try:
            new.rename(path)
        except OSError:
            aside.rename(path)
            raise
        aside.rename(new)


def recovered(folder: Path) -> Path:
    """Return a folder, or the copy set aside if its replacement was interrupted."""
    return folder if folder.exists() or not aside_of(folder).is_dir() else aside_of(folder)


@contextmanager
def lock_dir(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes while the block runs; a killed process releases it.

    The folder is created if it does not exist; if the block leaves it empty, it is removed.

    Raises:
        InputError: if another process has the lock, or the system refuses it.
    """
    existed = folder.exists()
    with ExitStack() as locked:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            locked.enter_context(lock_folder(folder))
        except BlockingIOError as error:
            raise InputError(
                f"{folder}: another run is writing there; wait until it ends, or choose another "
                "folder"
            ) from error
        except OSError as error:
            raise write_error(folder, error) from error
        try:
            yield
        finally:
            if not existed:
                with suppress(OSError):  # it holds something now
                    folder.rmdir()


def check_replaceable(folder: Path, known_by: str) -> None:
    """Refuse to overwrite a folder that holds other things.

    Args:
        folder: destination.
        known_by: a file that every folder of the expected kind has.

    Raises:
        InputError: if the folder holds something else.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / known_by).exists():
        raise InputError(f"{folder}: holds other files, which would be lost; name a new folder")


def flush_to_disk(path: Path) -> None:
    """Wait until a file or folder would survive a power cut."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_error(path: Path, error: OSError) -> InputError:
    """Return the error to raise for a write that the system refused."""
    reason = REASONS.get(error.errno or 0, error.strerror or str(error))
    return InputError(f"{path}: cannot be written: {reason}; choose another path or make room")


def check_name(name: str) -> None:
    """Reject a name that no file system accepts as a path.

    Raises:
        InputError: if it is blank, contains a zero byte, or is too long.
    """
    if not name.strip():
        raise InputError(f"{name!r}: is not a file name; give a path")
    try:
        os.stat(name)
    except (ValueError, OSError) as error:
        code = error.errno if isinstance(error, OSError) else None
        if isinstance(error, ValueError) or code in (errno.ENAMETOOLONG, errno.ELOOP):
            reason = REASONS.get(code or 0, "it has a zero byte or an unpaired surrogate")
            raise InputError(f"{name}: is not a path ({reason}); check it") from error


def resolve_path(name: str | Path) -> Path:
    """Return a path as it is, or for ``starter:NAME`` that of the package's own data.

    Raises:
        InputError: if the name is empty.
    """
    text = str(name)
    check_name(text)
    if not text.startswith(STARTER):
        return Path(name)
    return Path(str(resources.files("multidiff") / "starter" / text.removeprefix(STARTER)))


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, as ``sha256sum`` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

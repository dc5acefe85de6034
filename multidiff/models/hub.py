"""The Hugging Face hub: models fetched from it, at a revision of choice, and folders sent to it.

A name on the hub is ``owner/name``, or ``owner/name@REVISION`` with a branch, a tag or a commit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from multidiff.utils.errors import InputError
from multidiff.utils.readers import is_hub_name, is_hub_revision, reading

# Files of a model on the hub, ours or foreign.
FILES = ["*.yaml", "*.safetensors", "*.json", "*.txt", "*.jinja", "README.md"]
OFFLINE = "the hub is switched off by HF_HUB_OFFLINE; unset it"
NO_TOKEN = "there is no token; log in by `hf auth login`, set HF_TOKEN, or pass one"


@dataclass(frozen=True)
class Pushed:
    """A commit on the hub.

    Attributes:
        url: page of the repository.
        commit: id of the commit, to be named as revision.
    """

    url: str
    commit: str


def split_revision(name: str) -> tuple[str, str | None]:
    """Return the repository and the revision that a name on the hub gives; None without one."""
    repository, _, revision = name.partition("@")
    return repository, revision or None


def with_revision(name: str | Path, revision: str | None) -> str:
    """Return a name with its revision.

    Raises:
        InputError: if it has another one already, or is a path, which has none.
    """
    if revision is None:
        return str(name)
    repository, given = split_revision(str(name))
    if given not in (None, revision) or Path(name).exists() or not is_hub_name(repository):
        raise InputError(f"{name}: revision {revision!r} goes with a name on the hub without one")
    if not is_hub_revision(revision):
        raise InputError(f"revision {revision!r}: expected a branch, a tag or a commit")
    return f"{repository}@{revision}"


def snapshot(name: str) -> Path:
    """Return the folder of a model on the hub, downloaded unless it was before.

    Args:
        name: ``owner/name`` or ``owner/name@REVISION``.

    Raises:
        InputError: if it cannot be had, with the reason: no such repository or revision, no
            access, no network.
    """
    from huggingface_hub import snapshot_download  # slow to import, rarely needed

    repository, revision = split_revision(name)
    problem = "is not a folder and cannot be read from the hub"
    with reading(name, problem, "check its name"), _explained(name):
        return Path(snapshot_download(repository, revision=revision, allow_patterns=FILES))


def pinned(name: str) -> str:
    """Return a name with the commit that was downloaded; other names as they are.

    Raises:
        InputError: see :func:`snapshot`.
    """
    if Path(name).exists() or not is_hub_name(name):
        return name
    folder = snapshot(name)
    known = folder.parent.name == "snapshots"
    return f"{split_revision(name)[0]}@{folder.name}" if known else name


def upload(
    folder: Path,
    name: str,
    *,
    token: str | None = None,
    private: bool = False,
    message: str | None = None,
) -> Pushed:
    """Send a folder to a repository of the hub, which is created if it does not exist.

    Files of the same names are replaced in one commit, and others stay.

    Args:
        folder: folder of the files.
        name: ``owner/name``; with ``@BRANCH``, a branch, which is created too.
        token: access token; by default that of ``hf auth login`` or HF_TOKEN.
        private: whether a new repository is private.
        message: message of the commit.

    Raises:
        InputError: if the name cannot be on the hub, there is no token, or the hub refuses.
    """
    check_pushable(name, token)
    import huggingface_hub as hub

    repository, branch = split_revision(name)
    api = hub.HfApi(token=token)
    problem = "cannot be pushed to the hub"
    with reading(name, problem, "check name, token and network"), _explained(name):
        url = api.create_repo(repository, private=private, exist_ok=True)
        if branch is not None:
            api.create_branch(repository, branch=branch, exist_ok=True)
        made = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            revision=branch,
            commit_message=message or "Model by multidiff",
        )
    return Pushed(str(url), made.oid)


def check_pushable(name: str, token: str | None = None) -> None:
    """Reject a push that cannot succeed, before any network call.

    Raises:
        InputError: if the name cannot be on the hub, the hub is switched off, or there is no token.
    """
    if not is_hub_name(name):
        raise InputError(f"{name}: is not a name on the hub; write owner/name")
    import huggingface_hub as hub

    if hub.constants.HF_HUB_OFFLINE:
        raise InputError(f"{name}: {OFFLINE}")
    if token is None and hub.get_token() is None:
        raise InputError(f"{name}: {NO_TOKEN}")


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn the errors of the hub's client that have a known cause into one line each."""
    from huggingface_hub import constants, errors

    repository, revision = split_revision(name)
    try:
        yield
    except errors.RevisionNotFoundError as error:
        raise InputError(
            f"{repository}: has no revision {revision or 'main'!r}; name a branch, a tag or a "
            "commit of it"
        ) from error
    except errors.GatedRepoError as error:
        raise InputError(
            f"{repository}: is gated; ask for access on its page, and log in by `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"{repository}: is not on the hub, or is private; check the name, or log in by "
            "`hf auth login`"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        reason = OFFLINE if constants.HF_HUB_OFFLINE else "the hub cannot be reached; try again"
        raise InputError(
            f"{name}: cannot be read from the hub, and was not downloaded before: {reason}, or "
            "name a folder"
        ) from error

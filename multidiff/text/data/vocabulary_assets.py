"""What a vocabulary knows, kept beside a model's weights or made from texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from multidiff.text.data.listing import TextSource
from multidiff.utils.errors import InputError
from multidiff.utils.fingerprint import Fingerprint, of_path
from multidiff.utils.readers import read_text

LEAST_SIZE = 4


class SavedVocabulary(ABC):
    """One file beside the weights, or made at the first use.

    Nothing is read when it is built: the source of a model that was trained elsewhere is not
    there any more.

    Args:
        size: of the vocabulary.
        source: texts it is made from.

    Raises:
        InputError: if the size leaves no number to a token of a text.
    """

    FILE: ClassVar[str]

    def __init__(self, size: int, source: TextSource | None = None):
        if size < LEAST_SIZE:
            raise InputError(f"size {size} leaves a vocabulary no token; set {LEAST_SIZE} or more")
        self.size, self.source = size, source
        self._content: str | None = None

    @abstractmethod
    def _make(self) -> tuple[str, str]:
        """The content of a file that was not found, and what it is made from."""

    @abstractmethod
    def _take(self, content: str, name: str) -> None:
        """Take a content up; faults are told under that name."""

    def load_assets(self, folder: Path) -> None:
        """Take the file up, if it lies there; otherwise it is made when it is needed.

        Raises:
            InputError: if it cannot be read, or does not fit the size.
        """
        path = folder / self.FILE
        if path.is_file():
            self._hold(read_text(path), str(path))

    def assets(self) -> dict[str, str]:
        """The file's content, by its name."""
        return {self.FILE: self._ready()}

    def data_fingerprint(self) -> dict[str, Fingerprint]:
        """Return the fingerprint of what it is made from; nothing where that is not there."""
        made_from = self._origin()
        if made_from is not None:
            return {self.FILE: of_path(made_from)} if made_from.is_file() else {}
        if self.source is None:
            return {}
        try:
            return {self.FILE: self.source.fingerprint(load=False)}
        except InputError:
            return {}

    def _origin(self) -> Path | None:
        """The file that it is a copy of, if it is one."""
        return None

    def _ready(self) -> str:
        return self._content if self._content is not None else self._hold(*self._make())

    def _hold(self, content: str, name: str) -> str:
        self._take(content, name)
        self._content = content
        return content

    def _training_texts(self) -> list[str]:
        """The texts of the source that are not held out, and what they are made from."""
        if self.source is None:
            raise InputError(
                f"{self.FILE}: the model's folder holds none, and its vocabulary has no source; "
                "put the file there, or set the source"
            )
        found = self.source.listing()
        rows = self.source.rows(found, held_out=False)
        lists = [found.texts] if found.sources is None else [found.texts, found.sources]
        return [texts[row] for texts in lists for row in rows]

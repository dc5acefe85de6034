"""Vocabulary files, stored beside a model's weights or made from texts."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar

from multidiff.data.cache import cached_text
from multidiff.text.data.grouped import GroupedSample, GroupedTexts
from multidiff.text.data.listing import TextSource
from multidiff.text.data.sample import TextSample
from multidiff.text.data.stored import StoredTexts, is_large, texts_plan
from multidiff.utils.errors import InputError
from multidiff.utils.fingerprint import Fingerprint, of_path
from multidiff.utils.readers import read_text

logger = logging.getLogger(__name__)

LEAST_SIZE = 4
# Of a large source, this much text makes the vocabulary.
SAMPLE_BYTES = 128 << 20


class SavedVocabulary(ABC):
    """A vocabulary with one file beside the weights, made at the first use if it is missing.

    Nothing is read at construction: the source of a model that was trained elsewhere may not
    exist here.

    Args:
        size: size of the vocabulary.
        source: texts to make it from.

    Raises:
        InputError: if the size leaves no number for a token of a text.
    """

    FILE: ClassVar[str]

    def __init__(self, size: int, source: TextSource | None = None):
        if size < LEAST_SIZE:
            raise InputError(f"size {size} leaves no tokens; set {LEAST_SIZE} or more")
        self.size, self.source = size, source
        self._content: str | None = None

    @abstractmethod
    def _make(self) -> tuple[str, str]:
        """Return the content of a missing file, and the name of its source."""

    @abstractmethod
    def _take(self, content: str, name: str) -> None:
        """Load a content; errors are reported under that name."""

    def load_assets(self, folder: Path) -> None:
        """Load the file if it exists; otherwise it is made when needed.

        Raises:
            InputError: if it cannot be read, or does not fit the size.
        """
        path = folder / self.FILE
        if path.is_file():
            self._hold(read_text(path), str(path))

    def assets(self) -> dict[str, str]:
        """Return the file's content, by its name."""
        return {self.FILE: self._ready()}

    def data_fingerprint(self) -> dict[str, Fingerprint]:
        """Return the fingerprint of its source; empty if that does not exist."""
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
        """Return the file that it is a copy of, if it is one."""
        return None

    def _ready(self) -> str:
        return self._content if self._content is not None else self._hold(*self._made())

    def _made(self) -> tuple[str, str]:
        """Return what :meth:`_make` does; what is made of a large source is kept in the cache."""
        source = self.source
        if source is None or self._origin() is not None:
            return self._make()
        return self._kept("vocabulary", source, lambda: self._make()[0]), source.path

    def _kept(self, kind: str, source: TextSource, make: Callable[[], str]) -> str:
        """Return a text made of a source; that of a large one is kept in the cache.

        Args:
            kind: kind of the text, the beginning of its name there.
            source: the source.
            make: function that makes it.
        """
        if source.grouped is not None:
            texts = source.fingerprint()
        elif is_large(source):
            texts = texts_plan(source).folder.name
        else:
            return make()
        options = {key: value for key, value in vars(self).items() if not key.startswith("_")}
        described = {key: repr(value) for key, value in options.items() if key != "source"}
        key = {
            "vocabulary": [type(self).__name__, described, SAMPLE_BYTES],
            "texts": [texts, source.held_out_every],
        }
        return cached_text(kind, key, make)

    def _hold(self, content: str, name: str) -> str:
        self._take(content, name)
        self._content = content
        return content

    def _training_texts(self, source: TextSource | None = None) -> Iterable[str]:
        """Return the texts of a source that are not held out, and their sources.

        Of texts on disk they are a sample, evenly spread, of up to ``SAMPLE_BYTES``.

        Args:
            source: the source; by default that of the vocabulary.
        """
        source = self.source if source is None else source
        if source is None:
            raise InputError(
                f"{self.FILE}: is not in the model's folder, and its vocabulary has no source; "
                "put the file there, or set the source"
            )
        found = source.listing()
        if isinstance(found, GroupedTexts):
            some = GroupedSample(found, SAMPLE_BYTES)
            logger.warning("%s: its vocabulary is made from %s", source.path, some)
            return some
        if isinstance(found, StoredTexts) or not isinstance(found.texts[0], str):
            sample = TextSample(source, found, SAMPLE_BYTES)
            logger.warning("%s: its vocabulary is made from %s", source.path, sample)
            return sample
        rows = source.rows(found, held_out=False)
        lists = [found.texts] if found.sources is None else [found.texts, found.sources]
        return [texts[row] for texts in lists for row in rows]

"""Images that a command makes: prompt, negative prompt and seeds of each."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multidiff.image.outputs import Prompted, checked_prompts
from multidiff.image.request import ImageRequest
from multidiff.models.requests import FirstSeeds
from multidiff.utils.errors import InputError
from multidiff.utils.lines import decoded
from multidiff.utils.readers import parse_json, reading

logger = logging.getLogger(__name__)

DELIMITERS = {".csv": ",", ".tsv": "\t"}
PROMPT, NEGATIVE, SEED = COLUMNS = ("prompt", "negative_prompt", "seed")


@dataclass(frozen=True)
class PromptRow:
    """A prompt with a negative prompt and the seed of its first image, if it has its own."""

    prompt: str
    negative_prompt: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class WantedImage:
    """One image.

    Attributes:
        prompt: its prompt.
        negative_prompt: caption that guidance leads away from; None without one.
        seed: its random seed.
        variation_seed: seed that it is a variation towards; None without.
        file: its initial image; None without.
    """

    prompt: str
    negative_prompt: str | None
    seed: int
    variation_seed: int | None = None
    file: Path | None = None

    def facts(self) -> dict[str, str]:
        """Return what its file records besides prompt, seed and initial image."""
        found = {NEGATIVE: self.negative_prompt, "variation_seed": self.variation_seed}
        return {name: str(value) for name, value in found.items() if value is not None}


def prompt_rows(
    prompts: Sequence[str], negatives: Sequence[str] | None, table: Path | None
) -> list[PromptRow]:
    """Return the rows of options, or of a table.

    Args:
        prompts: the prompts.
        negatives: negative prompts, one for all or one each; None without.
        table: table of prompts; None without.

    Raises:
        InputError: if the numbers do not match, or the table cannot be read.
    """
    if table is not None:
        if prompts or len(negatives or ()) > 1:
            raise InputError("--prompt-table: leave out --prompt, and give one --negative-prompt")
        usual = negatives[0] if negatives else None
        rows = read_prompt_table(table)
        return [
            row if row.negative_prompt is not None else PromptRow(row.prompt, usual, row.seed)
            for row in rows
        ]
    if negatives and not prompts:
        raise InputError("--negative-prompt: changes nothing without --prompt; add it")
    own: Sequence[str | None] = negatives or [None]
    if len(own) not in (1, len(prompts)):
        raise InputError(
            f"--negative-prompt: {len(own)} for {len(prompts)} prompts; give one for all, or one "
            "for each"
        )
    own = [*own] * len(prompts) if len(own) == 1 else own
    return [PromptRow(*pair) for pair in zip(prompts, own, strict=True)]


def read_prompt_table(path: Path) -> list[PromptRow]:
    """Return the rows of a table with a column ``prompt``; also ``negative_prompt`` and ``seed``.

    An empty cell is as if the column were missing.

    Args:
        path: a ``.csv`` or ``.tsv`` file whose first row names the columns, or a ``.jsonl`` file.

    Raises:
        InputError: if it cannot be read, or a cell is wrong.
    """
    ending = path.suffix.lower()
    if ending not in (*DELIMITERS, ".jsonl"):
        raise InputError(f"--prompt-table {path}: give a .csv, .tsv or .jsonl file")
    with reading(path):
        text = decoded(str(path), path.read_bytes())
    rows: list[tuple[str, Mapping[str, Any]]] = []
    if ending == ".jsonl":
        for number, line in enumerate(text.splitlines(), 1):
            where = f"{path}:{number}"
            found = parse_json(line, where) if line.strip() else {}
            if not isinstance(found, dict):
                raise InputError(f'{where}: is no object; write {{"prompt": "..."}}')
            rows += [(where, found)] if found else []
    else:
        reader = csv.DictReader(
            io.StringIO(text, newline=""), delimiter=DELIMITERS[ending], restkey="beyond the header"
        )
        rows = [(f"{path}:{reader.line_num}", row) for row in reader]
        _check_columns(path, reader.fieldnames or [])
    if not rows:
        raise InputError(f"--prompt-table {path}: has no rows")
    return [_row(*one) for one in rows]


def _check_columns(path: Path, names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in COLUMNS]
    if PROMPT not in names or unknown:
        raise InputError(f"{path}: its columns are {', '.join(names)}; known: {', '.join(COLUMNS)}")


def _row(where: str, cells: Mapping[str, Any]) -> PromptRow:
    unknown = [name for name in cells if name not in COLUMNS]
    if unknown or not str(cells.get(PROMPT) or ""):
        wrong = f"unknown column {unknown[0]}" if unknown else f"no {PROMPT}"
        raise InputError(f"{where}: {wrong}; columns are {', '.join(COLUMNS)}")
    seed = cells.get(SEED)
    try:
        number = None if seed in (None, "") else int(str(seed))
    except ValueError as error:
        raise InputError(f"{where}: seed {seed!r} is not an integer") from error
    return PromptRow(str(cells[PROMPT]), cells.get(NEGATIVE) or None, number)


def wanted_images(
    model: Prompted,
    rows: Sequence[PromptRow],
    request: ImageRequest,
    num: int,
    seed: FirstSeeds,
    seeds: Sequence[int],
    files: Sequence[Path],
) -> list[WantedImage]:
    """Return the images of all rows, seeds and initial images, in this order.

    Args:
        model: the model.
        rows: prompts; empty for a model without them.
        request: options; with a variation all images of a row have its first seed.
        num: number of images of each row.
        seed: seed of the first image of rows without their own; a sequence has one for each row.
        seeds: seed of each row's only image, instead.
        files: initial images.

    Raises:
        InputError: if the model cannot read a prompt, or the seeds do not match.
    """
    prompts = checked_prompts(model, [row.prompt for row in rows])
    rows = rows or [PromptRow(prompts[0])]
    _warn_of_tokens(model, rows)
    if seeds and len(seeds) != len(rows):
        raise InputError(f"--seeds: {len(seeds)} for {len(rows)} prompts; give one for each")
    firsts = seeds or ([seed] * len(rows) if isinstance(seed, int) else seed)
    found = []
    for row, usual in zip(rows, firsts, strict=True):
        first = usual if row.seed is None or seeds else row.seed
        for number in range(1 if seeds else num):
            own, other = first + number, None
            if request.variation_strength:
                other = first + 1 if request.variation_seed is None else request.variation_seed
                own, other = first, other + number
            for file in files or [None]:
                found.append(WantedImage(row.prompt, row.negative_prompt, own, other, file))
    return found


def _warn_of_tokens(model: Any, rows: Sequence[PromptRow]) -> None:
    """Warn of textual inversions that no prompt uses."""
    texts = [text for row in rows for text in (row.prompt, row.negative_prompt or "")]
    for one in getattr(model, "embeddings", []):
        if not any(one.token in text for text in texts):
            logger.warning("%s: no prompt has its token %s", one.name, one.token)

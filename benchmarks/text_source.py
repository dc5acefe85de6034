"""Options by which the benchmarks of texts name their file, and what of it is held out."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from multidiff.text.data.listing import TextSource


def add_source(
    reader: ArgumentParser,
    column: str = "ref",
    meaning_column: str | None = "mr",
    held_out_every: int = 5,
) -> None:
    """Add the options, by default those of the E2E challenge.

    Args:
        reader: reader of a script's options.
        column: default of ``--column``.
        meaning_column: default of ``--meaning-column``.
        held_out_every: default of ``--held-out-every``.
    """
    reader.add_argument("data", help="file of texts")
    reader.add_argument("--column", default=column, help="column of the texts (%(default)s)")
    reader.add_argument(
        "--meaning-column", default=meaning_column, help="column of their meanings (%(default)s)"
    )
    reader.add_argument(
        "--held-out-every", type=int, default=held_out_every,
        help="one text, or meaning, of this number is held out (%(default)s)",
    )  # fmt: skip


def source_of(given: Namespace) -> TextSource:
    """Return the source that the options name."""
    return TextSource(
        given.data, column=given.column, meaning_column=given.meaning_column,
        held_out_every=given.held_out_every,
    )  # fmt: skip

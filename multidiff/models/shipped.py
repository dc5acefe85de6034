"""Cards of the models that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from multidiff.models.loading import WEIGHTS, shipped
from multidiff.models.model_card import read_card
from multidiff.utils.report import Report


def shipped_table() -> Report:
    """Return a table of the shipped models: size, domain, licence, description and figures."""
    report = Report([], {"models": []})
    for name, folder in shipped().items():
        size = (folder / WEIGHTS).stat().st_size / 1e6
        described = card_of(folder)
        report.lines.extend(
            [
                f"{name:<20}{size:>5.1f} MB   {described['domain']:<9} {described['license']}",
                f"    {described['about']}",
                f"    {described['figures']}",
            ]
        )
        report.facts["models"].append({"name": name, "megabytes": round(size, 2), **described})
    return report


def card_of(folder: Path) -> dict[str, Any]:
    """Return the head of a shipped model's card.

    Returns:
        ``about``, ``domain``, ``license`` and ``figures``, a line each, and ``results``.
    """
    return read_card(folder)[0]

"""README.md of a model on the hub: its card with the hub's metadata at the head.

The head of ``card.md`` may have, beside ``license``, ``results``: metrics and their values for
each data set, which become the hub's ``model-index``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multidiff.config.recipe import parse
from multidiff.utils.readers import read_text

CARD, README = "card.md", "README.md"
LIBRARY = "multidiff"
HEAD = re.compile(r"\A---\n(.*?)^---\n", re.MULTILINE | re.DOTALL)


def read_card(folder: Path) -> tuple[dict[str, Any], str]:
    """Return the head of a folder's card and its text; empty if it has none.

    Raises:
        InputError: if its head is no YAML.
    """
    path = next((folder / name for name in (CARD, README) if (folder / name).is_file()), None)
    if path is None:
        return {}, ""
    text = read_text(path)
    found = HEAD.match(text)
    if found is None:
        return {}, text
    return parse(found[1], str(path)).plain(), text[found.end() :]


def readme(
    model: Any,
    name: str,
    *,
    home: Path | None = None,
    license: str | None = None,
    base_model: str | None = None,
) -> str:
    """Return the text of a model's README.md for the hub.

    Args:
        model: a :class:`~multidiff.models.hub_model.HubModel`.
        name: its name on the hub, or that of its folder.
        home: folder whose card describes it; without a card it is described by its size.
        license: licence, instead of the card's.
        base_model: name on the hub of the model that it was tuned from.
    """
    from huggingface_hub import ModelCardData

    head, body = ({}, "") if home is None else read_card(home)
    kind = type(model).__name__
    stated = license or head.get("license")
    results = _results(model.pipeline_tag, head.get("results") or {})
    data = ModelCardData(
        license=None if stated is None else hub_license(stated),
        library_name=LIBRARY,
        pipeline_tag=model.pipeline_tag,
        tags=[LIBRARY, "diffusion", kind],
        base_model=base_model or head.get("base_model"),
        model_name=name.rpartition("/")[2] if results else None,
        eval_results=results,
    )
    shown = body.strip() or _described(model, name, kind)
    return f"---\n{data.to_yaml()}\n---\n{shown}\n"


def hub_license(name: str) -> str:
    """Return a licence by the hub's name: ``CC BY-SA 4.0`` is ``cc-by-sa-4.0``."""
    return re.sub(r"[\s_]+", "-", name.strip()).lower()


def _results(task: str, figures: Mapping[str, Mapping[str, float]]) -> list[Any] | None:
    """Return the hub's evaluation results of metrics by data set; None without any."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=task,
            dataset_type=re.sub(r"[^a-z0-9]+", "-", data.lower()).strip("-"),
            dataset_name=data,
            metric_type=re.sub(r"[^a-z0-9]+", "_", metric.lower()).strip("_"),
            metric_name=metric,
            metric_value=value,
        )
        for data, metrics in figures.items()
        for metric, value in metrics.items()
    ] or None


def _described(model: Any, name: str, kind: str) -> str:
    """Return the text of a model without a card."""
    weights = sum(one.numel() for one in model.parameters()) / 1e6
    return f"""# {name}

A `{kind}` of multidiff with {weights:.1f} million
parameters; recipe.yaml describes it.

```python
import multidiff as md

model = md.load("{name}")
```"""

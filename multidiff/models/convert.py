"""Conversion of checkpoints to a model's folder, and of models to other projects' formats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from multidiff.config.build import locate
from multidiff.config.options import read_options
from multidiff.config.registry import COMMANDS
from multidiff.models.converters import convert_weights
from multidiff.models.loading import (
    RECIPE,
    WEIGHTS,
    downloaded,
    find_model,
    is_ours,
    kept_assets,
    load,
    model_part,
    outline,
    save_model,
)
from multidiff.models.model_card import CARD
from multidiff.models.weights import check_fit
from multidiff.training.posthoc_ema import reconstruction_at
from multidiff.utils.errors import InputError
from multidiff.utils.files import check_replaceable
from multidiff.utils.readers import is_hub_name, read_text
from multidiff.utils.report import Report


def convert_checkpoint(
    source: Path,
    destination: Path,
    half: bool = False,
    words: Sequence[str] = (),
    base: str | None = None,
    bits: int | None = None,
    sigma_rel: float | None = None,
) -> Report:
    """Convert a foreign checkpoint, or one of our models or checkpoints, to a model's folder.

    Args:
        source: a file or folder of another project, a hub id, or one of our folders.
        destination: folder to write.
        half: whether to write float16.
        words: options of the converter that reads the source; for a model of ours, ``--to`` a
            format of another project.
        base: model that one of ours started from: only the difference from its weights is
            written.
        bits: number of bits for each number of that difference; 4 by default.
        sigma_rel: width of the post-hoc average to write, for a run with snapshots.

    Raises:
        InputError: if no converter recognises the file, it is damaged, or the destination holds
            anything but a model.
    """
    if not source.exists():
        if not is_hub_name(str(source)):
            raise InputError(f"{source}: no such file")
        source = Path(downloaded(str(source)))
    if base is not None and (words or not is_ours(source)):
        raise InputError(f"--base {base}: only for a model of ours that started from it")
    if bits is not None and base is None:
        raise InputError(f"--bits {bits}: only with --base, the model that it differs from")
    if sigma_rel is not None:
        if words or base is not None:
            raise InputError(
                f"--posthoc-ema {sigma_rel:g}: goes with --half alone; convert what it writes again"
            )
        check_replaceable(destination, RECIPE)
        return _averaged(source, destination, half, sigma_rel)
    if is_ours(source):
        folder = find_model(source)
        if words:
            return _exported(folder, destination, half, words)
        check_replaceable(destination, RECIPE)
        return _rewritten(folder, destination, half, base, bits)
    check_replaceable(destination, RECIPE)
    found = convert_weights(source, words)
    if found is None:
        raise InputError(f"{source}: is not a checkpoint of a known format")
    model = outline(found, source)
    check_fit(model, found.tensors, source)
    save_model(
        model, destination, found.recipe, half=half, texts=found.texts, tensors=found.tensors
    )
    return Report([f"{destination}: {found.about}"], {"destination": str(destination)})


def _exported(folder: Path, destination: Path, half: bool, words: Sequence[str]) -> Report:
    """Write a model of ours in another project's format."""
    model = load(folder)
    kind = type(model).__name__
    if "export" not in COMMANDS.get(kind, {}):
        raise InputError(f"{words[0]}: a {kind} cannot be written in another format")
    run = locate(COMMANDS[kind]["export"])
    given = {"recipe": model_part(folder / RECIPE).resolved, "half": half}
    options = read_options(words, run, given)
    if "to" not in options:
        raise InputError("--to is missing: give the format to write")
    return run(model, folder, destination, **given, **options)


def _averaged(run: Path, destination: Path, half: bool, sigma_rel: float) -> Report:
    """Write the model of a run, or of one of its checkpoints, with a post-hoc average."""
    model = load(run, weights=sigma_rel)
    found = reconstruction_at(model.home, sigma_rel)
    save_model(model, destination, read_text(model.home / RECIPE), half=half)
    line = (
        f"{destination}: average of width {sigma_rel:g} at step {found.step}, of "
        f"{len(found.parts)} averages; relative error of its profile {found.error:.2g}"
    )
    return Report([line], {"destination": str(destination), "profile_error": found.error})


def _rewritten(
    folder: Path, destination: Path, half: bool, base: str | None, bits: int | None
) -> Report:
    """Write a model's folder again, with its assets."""
    texts = kept_assets(folder)
    if (folder / CARD).is_file():
        texts[CARD] = read_text(folder / CARD)
    text = read_text(folder / RECIPE)
    bits = 4 if bits is None else bits
    save_model(load(folder), destination, text, half=half, texts=texts, base=base, bits=bits)
    size = (destination / WEIGHTS).stat().st_size / 1e6
    return Report([f"{destination}: {size:.1f} MB"], {"destination": str(destination)})

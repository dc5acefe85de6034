"""Models by name, folder or hub id, and their folder format.

A model is a folder: ``recipe.yaml`` describes it, ``model.safetensors`` holds its weights,
``card.md`` documents it, and the model's modality may keep assets beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import nn

from multidiff.config.build import Spec, check_section
from multidiff.config.recipe import Node, parse, read_recipe
from multidiff.config.registry import COMPONENTS
from multidiff.models.converters import convert_weights
from multidiff.models.delta import BASE, BITS, DIGEST, difference, rebuilt
from multidiff.models.hub import snapshot
from multidiff.models.init_weights import InitFrom
from multidiff.models.moving import fill, read_into_memory
from multidiff.models.offload import offloaded
from multidiff.models.weights import (
    Conversion,
    read_tensors,
    save_tensors,
    without_values,
)
from multidiff.nn.lora import with_adapters
from multidiff.training.checkpoints import OWN, checkpoint_of
from multidiff.utils.errors import InputError
from multidiff.utils.files import atomic_write_dir, check_name, file_digest, recovered
from multidiff.utils.manifest import MANIFEST, verified
from multidiff.utils.readers import is_hub_name, read_text, reading

RECIPE, WEIGHTS = "recipe.yaml", "model.safetensors"
AVERAGED = "ema.safetensors"
TRAINED = "model"
# Weights of a checkpoint that its task has and the model has not.
TASKS_OWN = ("times.", "teacher.")
ADAPTERS = "adapters."
HALF = {torch.float32: torch.float16, torch.bfloat16: torch.float16}


@runtime_checkable
class Model(Protocol):
    """Interface of the models of every modality."""

    def task(self) -> nn.Module:
        """Return the training task."""
        ...

    def metadata(self) -> dict[str, str]:
        """Return the properties the weights depend on, kept in their file and compared on load."""
        ...

    def assets(self) -> dict[str, str]:
        """Return the assets, further files of the model's folder, by name."""
        ...

    def load_assets(self, folder: Path) -> None:
        """Load the assets from a folder."""
        ...


SECTIONS: dict[str, Any] = {
    "model": Model,
    "weights": list[InitFrom],
    "data": "multidiff.data.batches:BatchSource",
    "validation": "multidiff.data.batches:BatchSource",
    "precompute": Callable,
    "trainer": "multidiff.training.trainer:Trainer",
}


def shipped() -> dict[str, Path]:
    """Return the models that come with the package, by name."""
    root = Path(str(resources.files("multidiff") / "pretrained"))
    found = sorted(root.glob(f"*/{WEIGHTS}")) if root.is_dir() else []
    return {path.parent.name: path.parent for path in found}


def load(
    name: str | Path,
    device: str | torch.device = "cpu",
    *,
    trainable: bool = False,
    checkpoint: int | str | None = None,
    weights: Literal["ema", "raw"] | float = "ema",
    dtype: torch.dtype | str | None = None,
    offload: bool = False,
) -> Any:
    """Load a ready model of any domain.

    Args:
        name: name of a shipped model, a folder, a model on the Hugging Face hub (``owner/name``,
            or ``owner/name@REVISION`` with a branch, tag or commit), or the folder or file of a
            foreign checkpoint, which is converted in memory.
        device: device to compute on.
        trainable: whether to keep gradients on for the weights that its training updates, to
            fine-tune it. Parts that are frozen in training stay frozen.
        checkpoint: for a run's folder, the step of one of its checkpoints, or "best", instead of
            the model at its end.
        weights: "ema" for the averaged weights, "raw" for those without averaging, or the relative
            width of a post-hoc average (see :mod:`multidiff.training.posthoc_ema`). The last two
            need a run's checkpoint: its newest one if ``checkpoint`` is None.
        dtype: precision of the networks that may have half of it: "float16", "bfloat16", or "auto"
            for that of the file; float32 by default, on every device. What needs float32, such as
            autoencoders, keeps it.
        offload: whether the parts of the model stay in the processor's memory, and each moves to
            the device when its turn comes.

    Raises:
        InputError: if the model cannot be found, its files do not fit each other, or it computes
            in float32 alone.
    """
    check_name(str(name))
    if isinstance(weights, str) and weights not in ("ema", "raw"):
        raise InputError(f"weights {weights!r}: expected 'ema', 'raw', or a width")
    if checkpoint is not None or weights != "ema":
        name = checkpoint_of(Path(name), checkpoint)
    name = downloaded(name)
    found = convert_weights(Path(name)) if _may_need_conversion(name) else None
    if found is not None:
        model = outline(found, Path(name))
        fill(model, found.tensors, name, "cpu" if offload else device, dtype)
        model.recipe = found.recipe
        return _ready(model, Path(name), device, trainable, offload)
    folder = find_model(name)
    if (folder / MANIFEST).is_file():  # a checkpoint of a run
        verified(folder)
    with without_values():
        model = build_model(folder / RECIPE)
    tensors, facts = read_weights(folder, weights)
    for key, value in model.metadata().items():
        if facts.get(key, value) != value:
            raise InputError(
                f"{folder / WEIGHTS}: was made for {key} {facts[key]}, but {folder / RECIPE} "
                f"has {value}; use both from the same model"
            )
    fill(model, tensors, folder / WEIGHTS, "cpu" if offload else device, dtype)
    model.load_assets(folder)
    model.recipe = read_text(folder / RECIPE)
    return _ready(model, folder, device, trainable, offload)


def load_outline(name: str | Path) -> Any:
    """Return a model as its recipe describes it, its parameters without values.

    Args:
        name: see :func:`load`.

    Raises:
        InputError: if there is no such model.
    """
    check_name(str(name))
    name = downloaded(name)
    found = convert_weights(Path(name)) if _may_need_conversion(name) else None
    if found is not None:
        return outline(found, Path(name))
    with without_values():
        return build_model(find_model(name) / RECIPE)


def _ready(
    model: Any, home: Path, device: str | torch.device, trainable: bool, offload: bool
) -> Any:
    model.home = home
    model = offloaded(model, device) if offload else model.to(device)
    model = model.eval()
    return model if trainable else model.requires_grad_(False)


def home_of(name: str | Path) -> Path:
    """Return the folder of a model that :func:`load` found; of a foreign one, its file or folder.

    Raises:
        InputError: if the model cannot be found.
    """
    name = downloaded(name)
    return Path(name) if _may_need_conversion(name) else find_model(name)


def downloaded(name: str | Path) -> str | Path:
    """Return a name, or the folder of a model on the hub, ours or foreign.

    Raises:
        InputError: if it is no name and no path, and cannot be read from the hub.
    """
    if str(name) in shipped() or recovered(Path(name)).exists():
        return name
    check_model_name(str(name))
    return snapshot(str(name))


def _may_need_conversion(name: str | Path) -> bool:
    path = recovered(Path(name))
    return str(name) not in shipped() and path.exists() and not is_ours(path)


def is_ours(path: Path) -> bool:
    """Return whether a path is a model's folder, or that of a run which trained one."""
    return (path / RECIPE).is_file() or (recovered(path / TRAINED) / RECIPE).is_file()


def outline(found: Conversion, source: Path) -> Any:
    """Return the model of a foreign checkpoint, its parameters without values.

    Args:
        found: the converted checkpoint; its assets are loaded, and its unexpected tensors left out
            if that is allowed.
        source: original file or folder.
    """
    with without_values():
        model = _built(parse(found.recipe, str(source)), source)
    with TemporaryDirectory() as root:
        folder = Path(root) / (source.resolve().stem or "model")
        folder.mkdir()
        for name, text in found.texts.items():
            (folder / name).write_text(text, "utf-8")
        model.load_assets(folder)
    found.keep_expected(model.state_dict().keys(), source)
    return model


def read_weights(
    folder: Path, weights: Literal["ema", "raw"] | float = "ema"
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return a model's weights; of a training run's checkpoint, the averaged ones or others."""
    tensors, facts = read_into_memory(folder / WEIGHTS)
    if BASE in facts:
        tensors = _with_base(tensors, facts, folder / WEIGHTS)
    if (folder / AVERAGED).is_file():
        if weights == "ema":
            tensors |= read_tensors(folder / AVERAGED)[0]
        elif weights != "raw":
            from multidiff.training.posthoc_ema import reconstruction_at

            tensors |= reconstruction_at(folder, float(weights)).tensors()
        tensors = {key: value for key, value in tensors.items() if not key.startswith(TASKS_OWN)}
        tensors = with_adapters(tensors, ADAPTERS)
    return tensors, facts


def _with_base(
    stored: Mapping[str, torch.Tensor], facts: Mapping[str, str], path: Path
) -> dict[str, torch.Tensor]:
    """Return the weights of a file that holds the difference from another model's.

    Raises:
        InputError: if the other model's are not those that it was made from.
    """
    base = find_model(facts[BASE]) / WEIGHTS
    if file_digest(base) != facts.get(DIGEST):
        raise InputError(
            f"{path}: is a difference from other weights than those of {base}; get both again, of "
            "one version"
        )
    with reading(path, "is not a difference of weights"):
        return rebuilt(stored, read_tensors(base)[0], int(facts[BITS]), path)


def find_model(name: str | Path) -> Path:
    """Return the folder of a model.

    Raises:
        InputError: if the model cannot be found.
    """
    if str(name) in shipped():
        return shipped()[str(name)]
    folder = recovered(Path(name))
    trained = recovered(folder / TRAINED)
    if (trained / WEIGHTS).is_file():  # a run's folder holds the model it trained
        return trained
    if folder.is_dir():
        for needed in (RECIPE, WEIGHTS):
            if not (folder / needed).is_file():
                raise InputError(f"{folder}: has no {needed}, so it is not a model's folder")
        return folder
    if folder.exists():
        raise InputError(f"{folder}: a model is a folder with {RECIPE} and {WEIGHTS}, not a file")
    return Path(downloaded(name))


def check_model_name(name: str) -> None:
    """Reject a name that cannot be a model's, before any network call.

    Args:
        name: name of a shipped model, a folder or file, or a model on the hub.

    Raises:
        InputError: if it cannot be any of these.
    """
    if name not in shipped() and not Path(name).exists() and not is_hub_name(name):
        raise InputError(
            f"no model {name!r}: give a folder, a hub id, or one of {', '.join(shipped())}"
        )


def check_recipe(path: Path, overrides: Sequence[str] = ()) -> dict[str, Spec]:
    """Return the checked sections of a recipe.

    Raises:
        InputError: if anything is wrong, with every error on a line of its own.
    """
    return check_section(read_recipe(path, overrides), SECTIONS, COMPONENTS)


def build_model(recipe: Path) -> Any:
    """Build the model of a recipe, with untrained weights; its other sections are ignored.

    Raises:
        InputError: if the recipe is wrong.
    """
    return _built(read_recipe(recipe), recipe)


def model_part(recipe: Path) -> Spec:
    """Return the checked section of a recipe's model; the others may name what is not here.

    Raises:
        InputError: if it is missing or wrong.
    """
    return _model_part(read_recipe(recipe), recipe)


def _built(tree: Node, name: Path) -> Any:
    return _model_part(tree, name).build()


def _model_part(tree: Node, name: Path) -> Spec:
    if "model" not in tree.value:
        raise InputError(f"{name}: has no section 'model'")
    only = Node({"model": tree.value["model"]}, tree.where)
    return check_section(only, SECTIONS, COMPONENTS)["model"]


def kept_assets(folder: Path) -> dict[str, str]:
    """Return the texts of a model's folder that are rewritten with it, by file name."""
    kept = [*folder.glob("*.json"), *folder.glob("*.txt")]
    return {path.name: read_text(path) for path in kept if path.name not in OWN}


def save_model(
    model: Any,
    folder: Path,
    recipe: str,
    *,
    half: bool = False,
    texts: Mapping[str, str] = {},
    tensors: Mapping[str, torch.Tensor] | None = None,
    base: str | None = None,
    bits: int = 4,
) -> None:
    """Write a model's folder atomically.

    Args:
        model: model to write.
        folder: destination; an existing model there is replaced.
        recipe: its resolved recipe.
        half: whether to write float16, half the size.
        texts: further files by name, such as the card.
        tensors: weights to write, if the model itself has no values.
        base: model that it started from, which anyone who loads it has: only the difference from
            that one's weights is written.
        bits: number of bits for each number of that difference (:mod:`multidiff.models.delta`).

    Raises:
        InputError: if the system refuses.
    """
    parse(recipe, RECIPE)
    held = model.state_dict() if tensors is None else tensors
    written = {name: held[name].to(one.dtype) for name, one in model.state_dict().items()}
    about = {"format": "multidiff", **model.metadata()}
    if base is not None:
        source = find_model(base) / WEIGHTS
        about |= {BASE: base, DIGEST: file_digest(source), BITS: str(bits)}
        written = difference(written, read_tensors(source)[0], bits)
    if half:
        written = {name: one.to(HALF.get(one.dtype, one.dtype)) for name, one in written.items()}
    with atomic_write_dir(folder) as partial:
        save_tensors(written, partial / WEIGHTS, about)
        (partial / RECIPE).write_text(recipe, "utf-8")
        for name, text in {**model.assets(), **texts}.items():
            (partial / name).write_text(text, "utf-8")

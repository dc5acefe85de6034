"""Models that are read from folders and the hub by their class, and written there."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from multidiff.config.recipe import parse
from multidiff.models.hub import Pushed, check_pushable, split_revision, upload, with_revision
from multidiff.models.model_card import README, readme
from multidiff.utils.errors import InputError
from multidiff.utils.readers import is_hub_name


class HubModel:
    """Base of the models of every modality: reading and writing folders and the hub.

    Attributes:
        pipeline_tag: the hub's name of the model's task.
        home: folder or file that it was loaded from; None for a new model.
        recipe: recipe that it was loaded with; empty for a new model.
    """

    pipeline_tag = "other"
    home: Path | None = None
    recipe: str = ""

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, revision: str | None = None, **options: Any
    ) -> Self:
        """Load a model of this class.

        Args:
            name: see :func:`multidiff.load`.
            revision: branch, tag or commit of a model on the hub.
            **options: those of :func:`multidiff.load`, such as ``device``.

        Raises:
            InputError: if it cannot be found, or is a model of another class.
        """
        from multidiff.models.loading import load

        model = load(with_revision(name, revision), **options)
        if not isinstance(model, cls):
            raise InputError(
                f"{name}: is a {type(model).__name__}, not a {cls.__name__}; load it by that class"
            )
        return model

    def save_pretrained(
        self, folder: str | Path, *, license: str | None = None, name: str | None = None
    ) -> Path:
        """Write the model's folder atomically, with a README.md for the hub.

        Weights that were stored as float16 are stored so again.

        Args:
            folder: destination; a model there is replaced.
            license: licence stated in README.md; by default that of the model's card.
            name: title of README.md; by default the folder's name.

        Raises:
            InputError: if the model was built in Python, so that no recipe describes it, or the
                destination holds other things.
        """
        from multidiff.models.loading import RECIPE, WEIGHTS, kept_assets, save_model
        from multidiff.models.moving import is_stored_in_half
        from multidiff.utils.files import check_replaceable

        folder = Path(folder)
        if not self.recipe:
            raise InputError(
                f"{folder}: this {type(self).__name__} was built in Python and has no recipe; "
                "write it by multidiff.save(model, folder, recipe)"
            )
        check_replaceable(folder, RECIPE)
        home = self.home if self.home is not None and (self.home / RECIPE).is_file() else None
        texts = {} if home is None else kept_assets(home)
        texts[README] = readme(
            self, name or folder.name, home=home, license=license, base_model=_base(self.recipe)
        )
        half = home is not None and is_stored_in_half(home / WEIGHTS)
        save_model(self, folder, self.recipe, half=half, texts=texts)
        return folder

    def push_to_hub(
        self,
        name: str,
        *,
        token: str | None = None,
        private: bool = False,
        license: str | None = None,
        message: str | None = None,
    ) -> Pushed:
        """Send the model to the hub: the files of :meth:`save_pretrained`, in one commit.

        Args:
            name: ``owner/name``, or ``owner/name@BRANCH``.
            token: access token; by default that of ``hf auth login`` or HF_TOKEN.
            private: whether a new repository is private.
            license: licence stated in README.md; by default that of the model's card.
            message: message of the commit.

        Raises:
            InputError: see :meth:`save_pretrained`; also without a token, or if the hub refuses.
        """
        check_pushable(name, token)
        with TemporaryDirectory() as root:
            title = split_revision(name)[0]
            folder = self.save_pretrained(Path(root) / "model", license=license, name=title)
            return upload(folder, name, token=token, private=private, message=message)


def _base(recipe: str) -> str | None:
    """Return the first model on the hub that a recipe's weights start from."""
    tree = parse(recipe, "recipe").plain()
    for one in tree.get("weights") or ():
        if is_hub_name(str(one.get("model"))):
            return split_revision(one["model"])[0]
    return None

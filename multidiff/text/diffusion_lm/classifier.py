"""Classifiers of noisy texts, for classifier guidance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from multidiff.core.gaussian.classifier_guidance import LogLikelihood
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.random import Rng
from multidiff.models.hub_model import HubModel
from multidiff.nn.embeddings import LogSNREmbedding
from multidiff.nn.transformer import Transformer
from multidiff.text.diffusion_lm.domain import EmbeddedDomain
from multidiff.utils.errors import InputError


class TextClassifier(HubModel, nn.Module):
    """Predicts the values of attributes from the noisy embeddings of a text.

    One network reads the text; each attribute has a head of its own, with one class more for "not
    mentioned" (the first).

    Args:
        domain: domain of the model to be guided, whose embeddings it reads; frozen in
            training.
        process: process of that model.
        width: width of the transformer.
        layers: number of blocks.
        heads: number of attention heads.
        embedding_width: width of the noise level's embedding.
        dropout: dropout probability of each residual branch.

    Raises:
        ValueError: if the domain has no table of meanings.
    """

    pipeline_tag = "text-classification"

    def __init__(
        self,
        domain: EmbeddedDomain,
        process: GaussianProcess,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        embedding_width: int = 64,
        dropout: float = 0.1,
    ):
        if domain.meanings is None:
            raise ValueError("a classifier needs a domain with meanings")
        super().__init__()
        self.domain, self.process = domain.requires_grad_(False), process
        self.attributes = domain.meanings.attributes
        self.read = nn.Linear(domain.width, width)
        self.positions = nn.Embedding(domain.length, width)
        self.level = LogSNREmbedding(embedding_width)
        self.body = Transformer(width, layers, heads, embedding_width, dropout=dropout)
        self.counts = [1 + len(values) for values in self.attributes.values()]
        self.say = nn.Linear(width, sum(self.counts))

    def task(self) -> TextClassifier:
        """Return the training task."""
        return self

    def metadata(self) -> dict[str, str]:
        """Return the properties that the weights depend on."""
        return {"kind": "classifier of texts"}

    def assets(self) -> dict[str, str]:
        """Return the assets by file name."""
        return self.domain.assets()

    def load_assets(self, folder: Path) -> None:
        """Load the assets from a folder."""
        self.domain.load_assets(folder)

    def data_fingerprint(self) -> dict[str, Any]:
        """Return the fingerprint of the vocabulary's source."""
        return self.domain.data_fingerprint()

    def forward(
        self,
        xt: Float[Tensor, "batch length state"],
        level: NoiseLevel,
        real: Bool[Tensor, "batch length"],
    ) -> list[Float[Tensor, "batch classes"]]:
        """Return log probabilities of the classes of each attribute."""
        x = self.read(xt) + self.positions.weight[: xt.shape[1]]
        found = self.body(x, self.level(level), keys=real)
        mean = (found * real[..., None]).sum(dim=1) / real.sum(dim=1, keepdim=True)
        return [one.log_softmax(dim=-1) for one in self.say(mean).split(self.counts, dim=-1)]

    def losses(self, batch: Any, rng: Rng | None) -> dict[str, Float[Tensor, " batch"]]:
        """Return the cross-entropy of each attribute, on texts at random levels."""
        encoded = self.domain.encode(batch, rng)
        level = self.process.draw_level(len(encoded.x0), rng).to(encoded.x0.device)
        xt = self.process.corrupt(encoded.x0, level, rng).xt
        found = self(xt, level, encoded.real)
        classes = self.classes(batch["meaning"]).to(xt.device)
        return {
            name.replace(" ", "_"): F.nll_loss(one, classes[:, position], reduction="none")
            for position, (name, one) in enumerate(zip(self.attributes, found, strict=True))
        }

    def classes(self, meanings: list[dict[str, str]]) -> Tensor:
        """Return the class of each attribute in meanings, 0 where it is not mentioned."""
        table = self.domain.meanings
        assert table is not None
        firsts = torch.tensor(list(table.absent.values()))
        return torch.tensor([table.whole(one) for one in meanings]) - firsts

    def wanted(self, wanted: Mapping[str, str], real: Tensor) -> LogLikelihood:
        """Return the function for the log likelihood that texts have all the values.

        Args:
            wanted: attributes and their values.
            real: mask of the texts' tokens, false at padding.

        Raises:
            InputError: if an attribute or a value is unknown.
        """
        table = self.domain.meanings
        assert table is not None
        names = list(self.attributes)
        positions = []
        for attribute, value in wanted.items():
            table.check(attribute, value)
            number = table.number[attribute, value] - table.absent[attribute]
            positions.append((names.index(attribute), number))

        def log_likelihood(xt: Tensor, level: NoiseLevel) -> Tensor:
            found = self(xt, level, real)
            return torch.stack([found[head][:, number] for head, number in positions]).sum(dim=0)

        return log_likelihood

    def check_fits(self, domain: EmbeddedDomain) -> None:
        """Check that it reads the embeddings of a domain.

        Raises:
            InputError: if it reads others.
        """
        own = self.domain.table
        if own.shape != domain.table.shape or not torch.allclose(
            own.float().cpu(), domain.table.float().cpu(), atol=2e-3
        ):
            raise InputError(
                "the classifier was trained on the embeddings of another model; train it on "
                "those of this one"
            )

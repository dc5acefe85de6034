"""Patch discriminator for adversarial training of an autoencoder."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.nn.adversarial import frozen_call, hinge_loss


class PatchDiscriminator(nn.Module):
    """PatchGAN discriminator (Isola et al. 2017): a score for each patch, high where it looks real.

    Group norms replace the original's batch norms, so that a score does not depend on the
    other images of the batch.

    Args:
        image_channels: 3 for colour.
        width: number of channels of the first layer.
        layers: number of times the size is halved.
    """

    def __init__(self, image_channels: int = 3, width: int = 64, layers: int = 3):
        super().__init__()
        stages: list[nn.Module] = [nn.Conv2d(image_channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        wide = width
        for number in range(1, layers + 1):
            stride, to = (2 if number < layers else 1), min(2**number, 8) * width
            stages += [
                nn.Conv2d(wide, to, 4, stride, 1, bias=False),
                nn.GroupNorm(min(32, to), to),
                nn.LeakyReLU(0.2),
            ]
            wide = to
        self.layers = nn.Sequential(*stages, nn.Conv2d(wide, 1, 4, 1, 1))

    def forward(self, image: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Return scores ``(batch, 1, patches, patches)``."""
        return self.layers(image)

    def loss(self, real: Tensor, made: Tensor) -> Float[Tensor, " batch"]:
        """Return the hinge loss that trains the discriminator's own weights."""
        return hinge_loss(self(real), self(made.detach()))

    def generator_loss(self, made: Tensor) -> Float[Tensor, " batch"]:
        """Return the loss that trains the generator; this module's weights get no gradient."""
        return -frozen_call(self, made).flatten(1).mean(dim=1)


def balance(
    first: Tensor, second: Tensor, weight: Tensor, largest: float = 1e4
) -> Float[Tensor, ""]:
    """Return the factor for the second loss that equalises both gradients at a weight.

    Esser et al. 2021, equation 7.
    """
    own, other = (
        torch.autograd.grad(loss.sum(), weight, retain_graph=True)[0].norm()
        for loss in (first, second)
    )
    return (own / (other + 1e-4)).clamp(max=largest).detach()

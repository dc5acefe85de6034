"""Small joint models of numbers."""

import torch
from torch import nn

from multidiff.core.discrete.absorbing import MaskProcess
from multidiff.core.discrete.schedules import CosineMasks
from multidiff.core.joint.process import JointProcess
from multidiff.joint.denoiser import JointTokenDenoiser
from multidiff.joint.model import JointModel
from multidiff.joint.streams import TokenStream

SHAPES = {"image": (5, 6), "audio": (4, 8), "text": (9, 3)}


class Numbers(TokenStream):
    """Media that are lists of numbers."""

    def __init__(self, size, length):
        super().__init__()
        self.size, self.length = size, length

    def read(self, cell):
        return cell.value

    def encode(self, media):
        return torch.tensor([[*one] for one in media])

    def decode(self, tokens, seeds):
        return tokens.tolist()


def joint_process(shapes, **options):
    parts = {
        n: MaskProcess(size, CosineMasks(), objective="mean") for n, (size, _) in shapes.items()
    }
    return JointProcess(parts, **options)


def model_of(shapes=SHAPES, denoiser=None, sampling=None, **options):
    torch.manual_seed(0)
    net = JointTokenDenoiser(dict(shapes), width=16, layers=2, heads=2)
    streams: dict[str, TokenStream] = {name: Numbers(*one) for name, one in shapes.items()}
    made = JointModel(streams, joint_process(shapes, **options), net, sampling)
    if denoiser is not None:
        denoiser.parts, made.denoiser = net.parts, denoiser
        denoiser.register_parameter("nothing", nn.Parameter(torch.zeros(())))  # it has a device
    return made.eval()

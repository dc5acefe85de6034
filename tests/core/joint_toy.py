"""A category and a number with a joint that is known: exact networks, bounds and samples.

c ~ (.5, .3, .2), x | c ~ N((-1, .3, 1.2), (.3, .2, .4)^2); the entropy of both is 1.180516 nats.
"""

import torch

from multidiff.core.discrete.absorbing import MaskProcess
from multidiff.core.discrete.schedules import PolynomialMasks
from multidiff.core.discrete.uniform import UniformProcess
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.schedules import LogSNRSchedule
from multidiff.core.joint.process import JointProcess

P = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
MEAN = torch.tensor([-1.0, 0.3, 1.2], dtype=torch.float64)
STD = torch.tensor([0.3, 0.2, 0.4], dtype=torch.float64)
ENTROPY = 1.180516


def joint_process(category="mask", **options):
    """x on LogSNR 10 .. -10 and c on linear alphas, masked or uniform."""
    kind = MaskProcess if category == "mask" else UniformProcess
    x = GaussianProcess(LogSNRSchedule(), options.pop("prediction", "x0"))
    return JointProcess({"x": x, "c": kind(3, PolynomialMasks())}, **options)


def draws(count, seed=0):
    rng = torch.Generator().manual_seed(seed)
    c = torch.multinomial(P, count, True, generator=rng)
    x = MEAN[c] + STD[c] * torch.randn(count, generator=rng, dtype=torch.float64)
    return {"x": x[:, None], "c": c[:, None]}


class ExactJoint:
    """The best network: E[x | noisy x, noisy c], and what the process of c reads.

    Of uniform noise that is the distribution given x alone, the leave-one-out reading.
    """

    def __init__(self, process):
        self.process, self.calls = process, 0

    def __call__(self, xt, level, condition=None):
        self.calls += 1
        a, s = (one.double()[:, None] for one in (level["x"].alpha, level["x"].sigma))
        variance = (a * STD) ** 2 + s**2
        x = xt["x"].double()
        seen = -0.5 * ((x - a * MEAN) ** 2 / variance + variance.log())
        from_x = P.log() + seen
        both = from_x + self._log_noise(xt["c"][:, 0], level["c"].alpha.double()[:, None])
        gain = a * STD**2 / variance
        x0 = (torch.softmax(both, 1) * (MEAN + gain * (x - a * MEAN))).sum(1, keepdim=True)
        output = self.process.parts["x"].prediction.target(_pair(x, x0, level["x"]))
        return {"x": output.to(xt["x"]), "c": from_x[:, None]}

    def _log_noise(self, z, alpha):
        """log q(z | c) for each c."""
        own = torch.eye(3, dtype=torch.float64)[z.clamp(max=2)]
        if isinstance(self.process.parts["c"], MaskProcess):
            return torch.where((z == 3)[:, None], 0.0, own.log())
        return (alpha * own + (1 - alpha) / 3).log()


def _pair(xt, x0, level):
    from multidiff.core.protocols import Corrupted

    a, s = level.alpha[:, None], level.sigma[:, None].clamp(min=1e-30)
    return Corrupted(xt, x0, (xt - a * x0) / s, level)

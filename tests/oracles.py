"""Exact denoisers: data whose best denoiser is known in closed form."""

import torch


def scale(coefficient, state):
    """A coefficient for each sample, shaped to multiply the state."""
    return coefficient.to(state).reshape(-1, *[1] * (state.ndim - 1))


def known_pair(process, x0, noise):
    """Returns what the network would say if it knew the clean state and the noise."""
    from multidiff.core.protocols import Corrupted

    def denoiser(xt, level, condition=None):
        return process.prediction.target(Corrupted(xt, x0, noise, level))

    return denoiser


def gaussian_data(std):
    """The best noise prediction for data from N(0, deviation^2)."""

    def denoiser(xt, level, condition=None):
        gain = level.sigma / (level.alpha**2 * std**2 + level.sigma**2)
        return xt * scale(gain, xt)

    return denoiser


def gaussian_data_with_variance(process, std):
    """The same beside the exact reverse variance, as a learned fraction (two channels)."""
    from multidiff.core.gaussian.posterior import Transition

    steps = process.schedule.num_steps

    def denoiser(xt, level, condition=None):
        step = Transition(level, process.schedule.at(level.time - 1 / steps))
        data = std**2
        left = data * level.sigma**2 / (level.alpha**2 * data + level.sigma**2)
        from_x0 = step.earlier.alpha * step.variance_step / level.sigma**2
        exact = step.posterior_variance + from_x0**2 * left
        low, high = step.posterior_variance.log(), step.variance_step.log()
        # The last step's variance is the decoder's, with nothing to choose between.
        fraction = torch.where(step.earlier.sigma == 0, 0.5, (exact.log() - low) / (high - low))
        noise = gaussian_data(std)(xt, level)
        return torch.cat([noise, scale(2 * fraction - 1, xt).expand_as(xt)], dim=1)

    return denoiser

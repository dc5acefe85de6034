"""Exact denoisers: data whose best denoiser is known in closed form."""

import torch


def scale(coefficient, state):
    """A coefficient for each sample, shaped to multiply the state."""
    return coefficient.to(state).reshape(-1, *[1] * (state.ndim - 1))


def known_pair(process, clean, noise):
    """Returns what the network would say if it knew the clean state and the noise."""
    from multidiff.core.protocols import Corrupted

    def denoiser(noisy, level, condition=None):
        return process.prediction.target(Corrupted(noisy, clean, noise, level))

    return denoiser


def gaussian_data(deviation):
    """The best noise prediction for data from N(0, deviation^2)."""

    def denoiser(noisy, level, condition=None):
        gain = level.sigma / (level.alpha**2 * deviation**2 + level.sigma**2)
        return noisy * scale(gain, noisy)

    return denoiser


def gaussian_data_with_variance(process, deviation):
    """The same beside the exact reverse variance, as a learned fraction (two channels)."""
    from multidiff.core.gaussian.posterior import Transition

    steps = process.schedule.num_steps

    def denoiser(noisy, level, condition=None):
        step = Transition(level, process.schedule.at(level.time - 1 / steps))
        data = deviation**2
        left = data * level.sigma**2 / (level.alpha**2 * data + level.sigma**2)
        from_clean = step.earlier.alpha * step.variance_step / level.sigma**2
        exact = step.posterior_variance + from_clean**2 * left
        low, high = step.posterior_variance.log(), step.variance_step.log()
        # The last step's variance is the decoder's, with nothing to choose between.
        fraction = torch.where(step.earlier.sigma == 0, 0.5, (exact.log() - low) / (high - low))
        noise = gaussian_data(deviation)(noisy, level)
        return torch.cat([noise, scale(2 * fraction - 1, noisy).expand_as(noisy)], dim=1)

    return denoiser

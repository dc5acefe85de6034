"""Gaussian diffusion: process, schedules, predictions, losses, samplers, likelihood."""

"""Masked (absorbing) diffusion of tokens: process, schedules, samplers, blocks."""

"""Masked diffusion of tokens."""

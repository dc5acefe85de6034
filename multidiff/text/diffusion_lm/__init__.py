"""Diffusion-LM: Gaussian diffusion of token embeddings."""

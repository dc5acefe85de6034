"""Diffusion in pixels and in latents."""

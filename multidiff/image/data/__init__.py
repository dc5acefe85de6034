"""Training data of image models: files, listings, captions, cached latents."""

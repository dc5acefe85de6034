"""Images to train on: files, listings, captions, cached latents."""

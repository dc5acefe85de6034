"""Images: diffusion in pixels and in the latent space of an autoencoder."""

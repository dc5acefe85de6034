"""Text: vocabularies, diffusion of embeddings, masked and edit-based models, metrics."""

"""Text: vocabulary, diffusion of embeddings, control, metrics."""

"""KL and vector-quantized autoencoders of images and their training."""

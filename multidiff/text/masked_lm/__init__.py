"""Published language models as denoisers of masked diffusion.

``conversion`` recognises a folder of another project, makes a recipe and weights from it, and
writes a model of ours back. ``denoiser`` turns a network on a tokenizer's ids into one on our
token numbers; ``networks`` holds the networks of transformers.
"""

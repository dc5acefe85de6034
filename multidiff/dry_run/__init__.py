"""Cost of training a recipe, estimated without a GPU, weights or data."""

"""What training a recipe takes, without a GPU, weights or data."""

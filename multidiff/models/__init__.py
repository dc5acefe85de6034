"""Models by name: loading, saving, weights, training and conversion."""

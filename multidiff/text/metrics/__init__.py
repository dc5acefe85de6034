"""Metrics of texts and the models that judge them."""

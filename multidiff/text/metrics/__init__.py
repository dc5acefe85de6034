"""Metrics of texts, and the classifiers and language models behind them."""

"""Texts to train on: sources, vocabularies, attributes."""

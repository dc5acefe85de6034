"""Training data of text models: sources, vocabularies, attributes."""

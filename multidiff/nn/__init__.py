"""Layers shared by the modality packages."""

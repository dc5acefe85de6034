"""Layers that several wings share."""

"""The mathematics that every modality shares. It imports torch alone."""

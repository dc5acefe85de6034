"""The maths that every modality shares. It imports torch alone."""

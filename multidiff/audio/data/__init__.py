"""Training data of speech models: recordings, segments, mel files."""

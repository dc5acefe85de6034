"""Speech to train on: recordings, segments, mel files."""

"""Speech from text: phonemes, durations, and a diffusion decoder of the log mel."""

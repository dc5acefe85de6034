"""The edit process and minimal alignments."""

"""Speech: mel front ends, vocoders on the shared process, data, metrics, synthesis."""

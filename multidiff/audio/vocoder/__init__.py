"""The vocoder: domains, networks, projection, inference schedules."""

"""Joint states: several parts, each with its own process and its own noise level."""

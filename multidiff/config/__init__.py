"""From a recipe to objects: registry, YAML, checks, command-line options."""

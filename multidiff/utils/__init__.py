"""Files, errors and reports: utilities that every package uses."""

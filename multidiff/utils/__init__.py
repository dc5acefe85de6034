"""Files, errors and reports: what every package uses."""

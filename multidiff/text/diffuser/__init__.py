"""DiffusER: an edit-based text editor."""

"""DiffusER: a text editor by edits."""

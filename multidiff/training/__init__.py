"""One trainer for every domain."""

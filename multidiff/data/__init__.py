"""Data of any size: columns on disk, a cache of them, orders, batches. No modality is known."""

"""Images by masked tokens (MaskGIT)."""

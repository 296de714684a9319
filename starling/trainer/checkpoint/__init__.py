"""Checkpoints: local disk first, then the store in parallel parts, the manifest last."""

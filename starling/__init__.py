"""Starling: trains models on interruptible cloud machines as if those machines never died."""

__version__ = "0.1.0"

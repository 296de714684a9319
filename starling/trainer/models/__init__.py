"""Models that a spec can name."""

"""Trains while things go wrong, as a seed says, and checks that every promise held. See docs/chaos.md."""

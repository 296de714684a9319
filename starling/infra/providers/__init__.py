"""Providers: who sells machines."""

"""Looks at a run's model from anywhere: loads it from the store, runs it over a dataset, asks it about images."""

"""The main job in front of your eyes: `make demo`."""

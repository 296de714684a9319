"""Touches the world: stores, providers, the node agent. Imports neither the orchestrator nor the trainer."""

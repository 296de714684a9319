"""Learns: data, model, loop, exact reduction, checkpoints, rendezvous."""

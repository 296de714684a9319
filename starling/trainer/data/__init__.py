"""Datasets: prepared once into shards in the store, cached on the node, read by index in a pure order."""

"""Hosts you own as nodes, reached by ssh: on each, local nodes' own code runs one node at a time."""

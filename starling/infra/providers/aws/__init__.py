"""Nodes are EC2 instances."""

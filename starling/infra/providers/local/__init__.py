"""Local nodes: real processes on this computer that stand for machines and can be interrupted like them."""

"""The instance metadata service (IMDS) of a node: an emulator for local nodes, and the client that agents use."""

"""The node agent: watches notices, supervises the trainer, heartbeats, ships logs, and ends its node when it should."""

"""A script of the user's, run as torchrun would: its folder is snapshotted, restored, and never torn."""

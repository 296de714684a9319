"""Snapshots of a folder in the store: whole or not there, content-addressed, numbered, never unpickled."""

"""Opens a store from its URI."""

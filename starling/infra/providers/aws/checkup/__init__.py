"""The checks of `starling doctor`: each says what it found and, if that is not right, what to do."""

"""One small training job, written twice: as a task for Starling, and as a script for plain torchrun."""

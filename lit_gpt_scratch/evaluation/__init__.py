"""Score checkpoints on any text."""

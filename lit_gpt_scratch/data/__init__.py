"""From where text lies to the batches that a model reads."""

"""Generate text: sampling, generation with a cache, and the command `predict`."""

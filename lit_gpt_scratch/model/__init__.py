"""The network and its KV cache."""

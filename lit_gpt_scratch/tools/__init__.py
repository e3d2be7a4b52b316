"""Tools that run `fit` as a separate process."""

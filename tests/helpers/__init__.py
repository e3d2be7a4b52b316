"""Functions and constants that several tests share."""

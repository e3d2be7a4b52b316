"""Scaling laws: a grid of runs, a law fitted on their losses, and published models."""

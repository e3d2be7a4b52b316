"""Estimates of a run's time, memory and loss before it starts."""

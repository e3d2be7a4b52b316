"""Read TensorBoard's event files."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def events(folder: Path | str) -> EventAccumulator:
    """Return all that a run has logged."""
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def scalars(folder: Path | str, tag: str) -> dict[int, float]:
    """Return the values of a metric by step, each logged once."""
    points = events(folder).Scalars(tag)
    assert len(points) == len({point.step for point in points}), "a step is logged twice"
    return {point.step: point.value for point in points}

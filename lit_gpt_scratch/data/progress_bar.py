"""Progress bars on standard error."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from tqdm import tqdm

DELAY_SECONDS = 2.0


class Bar(tqdm):
    """tqdm's bar without its thread: processes are forked while it is shown."""

    monitor_interval = 0

    def refresh(self, *args: Any, **kwargs: Any) -> None:
        """Draw the bar, but not within its delay, which tqdm forgets when a line is printed above."""
        if not self.delay or self._time() >= self.start_t + self.delay:
            super().refresh(*args, **kwargs)


def is_watched() -> bool:
    """Return whether a person sees standard error: on a terminal or in a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


@contextmanager
def progress_bar(description: str, total: int | None, unit: str = "") -> Iterator[Callable[[int], object]]:
    """Show a bar once two seconds have passed, where somebody watches.

    Args:
        description: What is done.
        total: Number of parts; None if unknown.
        unit: Unit of a part; of bytes, for example, millions are then counted as such.

    Yields:
        The function to call with the number of parts that are done since its last call.
    """
    with Bar(
        total=total,
        desc=description,
        unit=unit or "it",
        unit_scale=bool(unit),
        delay=DELAY_SECONDS,
        leave=False,
        disable=not is_watched(),
    ) as bar:
        yield bar.update


def print_above_bar(line: str, stream: TextIO) -> None:
    """Print a line, above the bar that may be on the same terminal."""
    Bar.write(line, file=stream)
    stream.flush()


@contextmanager
def status_line(text: str) -> Iterator[None]:
    """Show a line on a terminal while something goes on, and erase it."""
    is_shown = sys.stderr.isatty()
    if is_shown:
        print(text, end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if is_shown:
            print(f"\r{' ' * len(text)}\r", end="", file=sys.stderr, flush=True)

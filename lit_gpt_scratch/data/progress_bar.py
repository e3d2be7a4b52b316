"""Progress bars on standard error."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from tqdm import tqdm

DELAY_SECONDS = 2.0


class Bar(tqdm):
    """tqdm's bar without its monitor thread, because processes are forked while the bar is shown."""

    monitor_interval = 0

    def refresh(self, *args: Any, **kwargs: Any) -> None:
        """Draw the bar if its delay has passed.

        tqdm's own method draws the bar even before its delay has passed, if a line is printed above the bar.
        """
        if not self.delay or self._time() >= self.start_t + self.delay:
            super().refresh(*args, **kwargs)


def is_interactive() -> bool:
    """Return whether standard error is shown to a person, on a terminal or in a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


@contextmanager
def progress_bar(description: str, total: int | None, unit: str = "") -> Iterator[Callable[[int], object]]:
    """Show a progress bar after two seconds, if standard error is a terminal or a notebook.

    Args:
        description: Text before the bar.
        total: Number of items; None if unknown.
        unit: Unit of the counts, such as B for bytes; with a unit, counts have SI prefixes, as in 12.3MB.

    Yields:
        Function to call with the number of items processed since its last call.
    """
    with Bar(
        total=total,
        desc=description,
        unit=unit or "it",
        unit_scale=bool(unit),
        delay=DELAY_SECONDS,
        leave=False,
        disable=not is_interactive(),
    ) as bar:
        yield bar.update


def print_above_bar(line: str, stream: TextIO) -> None:
    """Print a line to a stream, above a progress bar that may be shown on the same terminal."""
    Bar.write(line, file=stream)
    stream.flush()


@contextmanager
def status_line(text: str) -> Iterator[None]:
    """Show a line of text on standard error during the ``with`` block, then erase it.

    Nothing is shown if standard error is not a terminal.
    """
    is_shown = sys.stderr.isatty()
    if is_shown:
        print(text, end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if is_shown:
            print(f"\r{' ' * len(text)}\r", end="", file=sys.stderr, flush=True)

"""A progress bar for what takes longer than one cares to wait in silence."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from tqdm import tqdm

SECONDS_OF_SILENCE = 2.0


class Bar(tqdm):
    """tqdm's bar without its thread: processes are forked while it is there."""

    monitor_interval = 0

    def refresh(self, *args: Any, **kwargs: Any) -> None:
        """Draw it, but not in the time of silence, which tqdm forgets when a line is written above."""
        if not self.delay or self._time() >= self.start_t + self.delay:
            super().refresh(*args, **kwargs)


@contextmanager
def patience(what: str, total: int | None, unit: str = "") -> Iterator[Callable[[int], object]]:
    """A bar on standard error, once two seconds have passed, for those who look: a terminal or a notebook.

    Args:
        what: What takes so long.
        total: Parts that there are to do; None where it is not known.
        unit: Of a part; of bytes, say, millions are then counted as such.

    Yields:
        The function to call with the number of parts that are done since it was last called.
    """
    is_watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    with Bar(
        total=total,
        desc=what,
        unit=unit or "it",
        unit_scale=bool(unit),
        delay=SECONDS_OF_SILENCE,
        leave=False,
        disable=not is_watched,
    ) as bar:
        yield bar.update


def say(line: str, to: TextIO) -> None:
    """A line on a stream, above the bar that may be on the same terminal."""
    Bar.write(line, file=to)
    to.flush()

"""A progress bar for what takes longer than one cares to wait in silence."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_OF_SILENCE = 2.0


@contextmanager
def patience(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, once two seconds have passed.

    Yields:
        The function to call with the number of parts that are done since it was last called.
    """
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn())
    bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
    task = bar.add_task(what, total=total)
    started_seconds = time.monotonic()

    def advance(n_more: int) -> None:
        bar.advance(task, n_more)
        if not bar.live.is_started and time.monotonic() - started_seconds > SECONDS_OF_SILENCE:
            bar.start()

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()

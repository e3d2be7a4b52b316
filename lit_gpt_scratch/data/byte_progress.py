"""How far the reading or tokenizing of a text is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

WORTH_A_BAR_BYTES = 20 * 10**6  # less is done in a second or two


@contextmanager
def byte_progress(what: str, n_bytes: int, is_estimate: bool = False) -> Iterator[Callable[[int], None]]:
    """A bar on standard error of bytes, MB/s and time to go, where there is much to do.

    A mere estimate of the bytes (of packed files, say) gives no time to go.

    Yields:
        The function to call with each number of bytes that is done.
    """
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30))
    times = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    quiet = n_bytes < WORTH_A_BAR_BYTES
    with Progress(*columns, *times, console=Console(stderr=True), disable=quiet, refresh_per_second=4) as bar:
        task = bar.add_task(what, total=None if is_estimate else n_bytes)
        yield lambda n_more_bytes: bar.advance(task, n_more_bytes)
        done = bar.tasks[0].completed
        bar.update(task, total=done, completed=done)  # the total may be a few bytes off

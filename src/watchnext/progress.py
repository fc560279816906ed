"""Progress bars on the terminal, silent where there is none."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

console = Console(stderr=True)


class RateColumn(ProgressColumn):
    """Steps a second."""

    def render(self, task: Task) -> Text:
        """Gives the rate of the last half minute."""
        return Text(f"{task.speed:,.1f}/s" if task.speed else "")


class Bar:
    """One bar: `advance` moves it, `say` sets the text at its end (loss, rate)."""

    def __init__(self, progress: Progress, description: str, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task(description, total=total, note="")

    def advance(self, steps: int = 1) -> None:
        """Moves the bar by `steps`."""
        self._progress.advance(self._task, steps)

    def say(self, note: str) -> None:
        """Shows `note` behind the bar."""
        self._progress.update(self._task, note=note)


@contextmanager
def bar(description: str, total: int | None) -> Iterator[Bar]:
    """Shows a bar with rate and time left while the block runs; vanishes at its end."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        yield Bar(progress, description, total)


def say(message: str, style: str | None = None) -> None:
    """Writes one line for the person who waits; results go to standard output, this goes to standard error.

    `message` may hold paths and names: brackets in it are no markup.
    """
    console.out(message, style=style, highlight=False)

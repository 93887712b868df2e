"""Progress on stderr for long work: a bar on a terminal, silence elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Report = Callable[[float, float | None], None]  # (share done, seconds left or None)


def silent(done: float, left: float | None = None) -> None:
    """Reports nothing."""


@contextmanager
def bar(title: str, quiet: bool = False) -> Iterator[Report]:
    """A progress bar while the block runs. Yields the function that moves it."""
    if quiet or not sys.stderr.isatty():
        yield silent
        return
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(), TextColumn("{task.fields[left]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=1.0, left="")

        def move(done: float, left: float | None = None) -> None:
            progress.update(task, completed=done, left="" if left is None else f"about {_duration(left)} left")

        yield move


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"

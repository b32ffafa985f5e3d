"""A progress bar on standard error."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class ProgressBar:
    """A bar, the elapsed time and a text; not shown if `quiet` or if standard error is not a terminal."""

    def __init__(self, screen: Console | None = None, quiet: bool = False, *, delay_s: float = 0.0) -> None:
        """Show the bar on this screen, standard error by default, once `delay_s` have passed."""
        screen = screen or Console(stderr=True)
        columns = (BarColumn(bar_width=24), TimeElapsedColumn(), TextColumn("{task.description}"))
        self._bar = Progress(
            *columns, console=screen, transient=True, disable=quiet or not screen.is_terminal
        )
        self._task = self._bar.add_task("", total=None)
        self._start_s = time.monotonic() + delay_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, text: str, share: float | None = None) -> None:
        """Update the text and the completed share, from 0 to 1; None where the end is not known."""
        if time.monotonic() >= self._start_s:
            self._bar.start()
        self._bar.update(
            self._task, description=text, total=None if share is None else 1.0, completed=share or 0.0
        )

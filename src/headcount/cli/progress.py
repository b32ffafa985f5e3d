"""A progress bar on standard error, for commands that run for minutes."""

from __future__ import annotations

from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class ProgressBar:
    """A bar with the elapsed time and a text; nothing is shown if quiet or if it isn't a terminal."""

    def __init__(self, console: Console, quiet: bool) -> None:
        columns = (BarColumn(bar_width=24), TimeElapsedColumn(), TextColumn("{task.description}"))
        disable = quiet or not console.is_terminal
        self._bar = Progress(*columns, console=console, transient=True, disable=disable)
        self._task = self._bar.add_task("", total=1.0)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, text: str, share: float) -> None:
        """Show what happens now, and the share that is done."""
        self._bar.update(self._task, completed=share, description=text)

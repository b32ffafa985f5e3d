"""Output of commands: tables, JSON, and files that only their owner can read."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import click

from headcount.errors import SettingsError

#: Tables that do not go to a terminal have room for long texts.
_WIDTH = 200
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
to_file = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to a new file that only you can read.  [default: standard output]",
)


def print_json(content: Any, *, indented: bool = True) -> None:
    """Print a JSON document, over several lines or on one."""
    import msgspec

    encoded = msgspec.json.encode(content)
    click.echo(msgspec.json.format(encoded).decode() if indented else encoded.decode())


def print_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table; the texts are shown as they are."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else _WIDTH
    Console(width=width, highlight=False, markup=False, emoji=False).print(table)


def moment(t_s: float) -> str:
    """A time for people."""
    return datetime.fromtimestamp(t_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


@contextlib.contextmanager
def private_file(path: Path | None) -> Iterator[IO[str]]:
    """Standard output, or a new file that only its owner can read; after an error there is no file.

    Raises:
        SettingsError: the file exists, or cannot be created.
    """
    if path is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    try:
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise SettingsError("--output", f"{path} cannot be created: {error.strerror or error}") from error
    try:
        with os.fdopen(opened, "w", encoding="utf-8", newline="") as out:
            yield out
    except BaseException:
        path.unlink(missing_ok=True)
        raise

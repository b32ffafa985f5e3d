"""A group of commands that imports a command only when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import click


class Entry(NamedTuple):
    """Where a command is (`module:attribute` in this package), and its line in the help of its group."""

    target: str
    help: str


class LazyGroup(click.Group):
    """A group whose `--help` needs no import of its commands."""

    def __init__(self, *args: Any, sections: Mapping[str, Mapping[str, Entry]], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self._sections = sections
        self.entries = {name: entry for section in sections.values() for name, entry in section.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the help, those of commands that are attached directly first."""
        return [*super().list_commands(ctx), *self.entries]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self.entries:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self.entries[cmd_name].target.partition(":")
        command: click.Command = getattr(importlib.import_module(f"headcount.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section of commands for each section of the table."""
        attached = ((name, self.commands[name].get_short_help_str()) for name in super().list_commands(ctx))
        _write(formatter, "Commands", attached)
        for title, entries in self._sections.items():
            _write(formatter, title, ((name, entry.help) for name, entry in entries.items()))


def _write(formatter: click.HelpFormatter, title: str, rows: Iterable[tuple[str, str]]) -> None:
    if rows := list(rows):
        with formatter.section(title):
            formatter.write_dl(rows)

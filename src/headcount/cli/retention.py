"""`headcount retention`: proof of how old the oldest of everything that is kept is."""

from __future__ import annotations

import asyncio
import sys
import time

import click
import msgspec

from headcount.cli.core import at_the_core, core_options
from headcount.privacy.retention_report import StoreAge, store_ages
from headcount.settings.deployment import Settings


@click.group("retention")
def retention() -> None:
    """How long what is kept: the oldest row of every store, really read."""


@retention.command()
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each store.")
@core_options
def report(as_json: bool, settings: Settings) -> None:
    """Each store with its limit and the age of the oldest row in it. Exit code 1 where one is older.

    Run it where the data folder is: files that aren't on this machine can't be looked at.
    """

    async def work() -> list[StoreAge]:
        async with at_the_core(settings) as client:
            return await store_ages(client, settings.data, time.time())

    found = asyncio.run(work())
    if as_json:
        for row in found:
            click.echo(msgspec.json.encode(msgspec.to_builtins(row) | {"kept": row.kept}).decode())
    else:
        click.echo(f"{'store':<36} {'limit':>9} {'oldest':>9}  verdict")
        for row in found:
            limit = "memory" if row.limit_s is None else _span(row.limit_s)
            age = "-" if row.age_s is None else _span(row.age_s)
            verdict = "kept" if row.kept else "TOO OLD"
            click.echo(f"{row.store:<36} {limit:>9} {age:>9}  {verdict}  {row.note}".rstrip())
    if not all(row.kept for row in found):
        sys.exit(1)


def _span(seconds: float) -> str:
    """A time as people say it."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"

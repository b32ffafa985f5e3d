"""`headcount retention`: the age of stored data."""

from __future__ import annotations

import sys
import time

import click

from headcount.cli.client import RunningDeployment, on_deployment
from headcount.cli.output import as_json, print_json


@click.group()
def retention() -> None:
    """Report the age of stored data."""


@retention.command()
@as_json
@on_deployment()
async def report(running: RunningDeployment, as_json: bool) -> None:
    """Report the age of the oldest row of each store, as read from the store.

    Prints each store with its limit and its age, with --json one document per line; exit code 1 if one is too old. Run it
    where the data folder is: it cannot read files of other machines.

    \b
    Example:
      headcount retention report --data /var/lib/headcount
    """
    import msgspec

    from headcount.privacy.retention_report import store_ages

    stores = await store_ages(running.services.client, running.settings.data, time.time())
    if as_json:
        for store in stores:
            print_json(msgspec.to_builtins(store) | {"kept": store.kept}, indented=False)
    else:
        click.echo(f"{'store':<36} {'limit':>9} {'oldest':>9}  verdict")
        for store in stores:
            limit = "memory" if store.limit_s is None else _span(store.limit_s)
            age = "-" if store.age_s is None else _span(store.age_s)
            verdict = "ok" if store.kept else "TOO OLD"
            click.echo(f"{store.store:<36} {limit:>9} {age:>9}  {verdict}  {store.note}".rstrip())
    if not all(store.kept for store in stores):
        sys.exit(1)


def _span(seconds: float) -> str:
    """A duration for people."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"

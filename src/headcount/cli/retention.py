"""`headcount retention`: the age of stored data, and legal holds."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from headcount.cli.client import RunningDeployment, on_deployment
from headcount.cli.export import catalog_of
from headcount.cli.output import as_json, moment, print_json, print_table
from headcount.cli.parameters import instant
from headcount.errors import SettingsError

if TYPE_CHECKING:
    from headcount.services.holds import HoldService

_reason = click.option("--reason", required=True, metavar="TEXT", help="Reason, for the audit log.")


@click.group()
def retention() -> None:
    """Report the age of stored data, and keep rows under legal holds."""


@retention.command()
@as_json
@on_deployment("history", "retain")
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
    from headcount.settings.retention_periods import retention_periods

    data, periods = running.settings.data, retention_periods(running.settings.retain)
    stores = await store_ages(
        running.services.client, data, catalog_of(running.settings), periods, time.time()
    )
    if as_json:
        for store in stores:
            print_json(msgspec.to_builtins(store) | {"kept": store.kept}, indented=False)
    else:
        click.echo(f"{'store':<36} {'limit':>9} {'oldest':>9}  verdict")
        for store in stores:
            limit = store.unlimited if store.limit_s is None else _span(store.limit_s)
            age = "-" if store.age_s is None else _span(store.age_s)
            verdict = "ok" if store.kept else "TOO OLD"
            click.echo(f"{store.store:<36} {limit:>9} {age:>9}  {verdict}  {store.note}".rstrip())
    if not all(store.kept for store in stores):
        sys.exit(1)


@retention.group()
def hold() -> None:
    """Keep rows of the history for a legal reason.

    Rows under a hold neither expire nor are they erased. Once they would have expired, no query reads them;
    when the hold is released, they are deleted. Each hold and its release is in the audit log.

    \b
    Examples:
      headcount retention hold add --reason "accident at the north entrance" --from 2026-11-27T10:00Z --to 2026-11-27T11:00Z
      headcount retention hold list
      headcount retention hold release hold-1f0a8c3e --reason "case closed"
    """


@hold.command()
@_reason
@click.option("--from", "from_s", type=instant, required=True, metavar="TIME", help="First time of the rows.")
@click.option("--to", "to_s", type=instant, required=True, metavar="TIME", help="Last time of the rows.")
@click.option("--site", "site", default="", show_default=False, metavar="ID", help="Site.  [default: all]")
@click.option("--data-set", "datasets", multiple=True, metavar="NAME", help="Such as fixes.  [default: all]")
@on_deployment("history")
async def add(
    running: RunningDeployment, reason: str, from_s: float, to_s: float, site: str, datasets: tuple[str, ...]
) -> None:
    """Place a hold.

    Prints its id. It holds what is stored: rows that have expired are gone.

    \b
    Example:
      headcount retention hold add --reason "accident" --from 2026-11-27T10:00Z --to 2026-11-27T11:00Z --site ul
    """
    if site:
        site = await running.site(site, or_removed=True)
    placed = await _holds(running).add(running.actor, reason, (from_s, to_s), site, datasets)
    click.echo(f"{placed.id} is placed.")


@hold.command("list")
@as_json
@on_deployment("history")
async def list_(running: RunningDeployment, as_json: bool) -> None:
    """List the holds in force.

    Prints each with the rows that are kept only for it: expired ones, and erased ones.
    """
    import msgspec

    found = await _holds(running).all()
    if as_json:
        for each in found:
            print_json(msgspec.to_builtins(each), indented=False)
        return
    rows = [
        (
            each.hold.id,
            each.hold.reason,
            each.hold.site or "all",
            f"{moment(each.hold.from_s)} to {moment(each.hold.to_s)}",
            ", ".join(each.hold.datasets) or "all",
            f"{each.hold.by}, {moment(each.hold.placed_s)}",
            str(each.rows),
        )
        for each in found
    ]
    print_table(("hold", "reason", "site", "span", "data sets", "placed", "rows"), rows)


@hold.command()
@click.argument("hold_id", metavar="ID")
@_reason
@on_deployment("history")
async def release(running: RunningDeployment, hold_id: str, reason: str) -> None:
    """Release a hold.

    Rows that were kept only for it are deleted within minutes, those of erased devices among them.

    \b
    Example:
      headcount retention hold release hold-1f0a8c3e --reason "case closed"
    """
    if not await _holds(running).release(running.actor, hold_id, reason):
        raise SettingsError("ID", f"there is no hold {hold_id!r}; see `headcount retention hold list`")
    click.echo(f"{hold_id} is released.")


def _holds(running: RunningDeployment) -> HoldService:
    from headcount.services.holds import HoldService

    return HoldService(catalog_of(running.settings), running.services.audit)


def _span(seconds: float) -> str:
    """A duration for people."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"

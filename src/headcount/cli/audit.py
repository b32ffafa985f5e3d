"""`headcount audit`: what the audit log holds, and whether it fits together."""

from __future__ import annotations

import asyncio
import sys
from contextlib import nullcontext

import click
import msgspec

from headcount.access.audit_log import ACTION, AuditEntry, AuditLog, ChainReport
from headcount.cli.core import at_the_core, core_options
from headcount.errors import SettingsError
from headcount.roles.secret import secret_of
from headcount.settings.deployment import Settings

#: Entries between two moves of the progress bar.
_STEP = 500


@click.group("audit")
def audit() -> None:
    """The audit log: who has done what; verify, list.

    \b
    headcount audit verify
    headcount audit verify --from-head 1234:5f1c…
    headcount audit list --action positions
    """


@audit.command()
@click.option(
    "--from-head",
    default="",
    metavar="NUMBER:HASH",
    help="A head that an earlier verify printed, and that was kept elsewhere: it must still be there.",
)
@core_options
def verify(from_head: str, settings: Settings) -> None:
    """Walk over the whole log: is anything changed, missing or in another place?

    Exit code 1 where something is. Keep the head that it prints somewhere else: only with it a missing end is
    found. Whoever has the deployment's secret can write a whole new log; against them only such a head helps.
    """
    checked = asyncio.run(_verify(settings, from_head))
    for problem in checked.problems:
        click.echo(str(problem), err=True)
    if not checked.intact:
        click.echo(f"The audit log is broken: {len(checked.problems)} problems.", err=True)
        sys.exit(1)
    if checked.entries == 0:
        click.echo("The audit log is empty.")
        return
    click.echo(f"{checked.entries} entries from {checked.first} on fit together.")
    click.echo(f"head {checked.head}")


@audit.command("list")
@click.option("--action", default="", help="Only this action, or all that begin so: device for device.add.")
@click.option("--before", type=click.IntRange(1), help="Only entries before this number.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Entries at most."
)
@click.option("--json", "as_json", is_flag=True, help="A line of JSON each.")
@core_options
def list_(action: str, before: int | None, limit: int, as_json: bool, settings: Settings) -> None:
    """The newest entries, newest first."""
    if action and ACTION.fullmatch(action) is None:
        raise SettingsError("--action", f"{action!r} is no action: use a dotted lower-case name")

    async def work() -> list[AuditEntry]:
        async with at_the_core(settings) as client:
            log = AuditLog(client, secret_of(settings))
            return (await log.entries(before=before, limit=limit, action=action))[0]

    for entry in asyncio.run(work()):
        if as_json:
            click.echo(msgspec.json.encode(entry).decode())
        else:
            detail = " ".join(f"{name}={value!r}" for name, value in entry.detail.items())
            about = " ".join(filter(None, (entry.subject, detail)))
            click.echo(f"{entry.n:>6} {entry.at} {entry.action:<20} {entry.actor}  {about}".rstrip())


async def _verify(settings: Settings, from_head: str) -> ChainReport:
    async with at_the_core(settings) as client:
        log = AuditLog(client, secret_of(settings))
        shown = sys.stderr.isatty()
        with (
            click.progressbar(length=1, label="verifying", file=sys.stderr) if shown else nullcontext() as bar
        ):

            def progress(done: int, total: int) -> None:
                if bar is not None and (done % _STEP == 0 or done == total):
                    bar.length = max(total, 1)
                    bar.update(done - bar.pos)

            return await log.verify(from_head, progress)

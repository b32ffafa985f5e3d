"""`headcount audit`: list and verify the audit log."""

from __future__ import annotations

import sys

import click

from headcount.cli.client import RunningDeployment, on_deployment
from headcount.cli.output import as_json, print_json
from headcount.errors import SettingsError


@click.group()
def audit() -> None:
    """List or verify the audit log.

    \b
    Examples:
      headcount audit verify
      headcount audit verify --from-head 1234:5f1c…
      headcount audit list --action positions
    """


@audit.command()
@click.option(
    "--from-head",
    default="",
    show_default=False,
    metavar="NUMBER:HASH",
    help="Head that an earlier `verify` printed, and that was stored elsewhere: it must still be in the log.",
)
@on_deployment()
async def verify(running: RunningDeployment, from_head: str) -> None:
    """Check that no entry was changed, removed or moved.

    Prints the number of entries and the head of the log; exit code 1 if the check fails. Store the head elsewhere: only
    --from-head detects that entries are missing at the end, and that a person with the deployment's secret has written a
    new log.
    """
    from headcount.access.audit_log import NEARLY_FULL
    from headcount.cli.progress import ProgressBar

    with ProgressBar() as progress:
        report = await running.services.audit_log.verify(
            from_head, lambda done, total: progress.show("verifying", done / max(total, 1))
        )
    for problem in report.problems:
        click.echo(str(problem), err=True)
    if report.used > NEARLY_FULL:
        click.echo(
            f"The log is {report.used:.0%} full. When it is, actions that must be recorded are refused: "
            "make room on the disk of the data folder and restart.",
            err=True,
        )
    if not report.intact:
        click.echo(f"The audit log is damaged: {len(report.problems)} problems.", err=True)
        sys.exit(1)
    if report.entries == 0:
        click.echo("The audit log is empty.")
        return
    click.echo(f"{report.entries} entries, from number {report.first} on, are intact.")
    click.echo(f"head {report.head}")


@audit.command("list")
@click.option(
    "--action",
    default="",
    show_default=False,
    help="Only this action, or those below it: device for device.add.",
)
@click.option("--before", type=click.IntRange(1), help="Only entries before this number.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, help="Maximum number of entries.")
@as_json
@on_deployment()
async def list_(
    running: RunningDeployment, action: str, before: int | None, limit: int, as_json: bool
) -> None:
    """List the newest entries.

    Prints one per line, the newest first; with --json each as a JSON document.
    """
    from headcount.access.audit_log import ACTION

    if action and ACTION.fullmatch(action) is None:
        raise SettingsError("--action", f"{action!r} is not a valid action; use a name such as device.add")
    entries, _ = await running.services.audit_log.entries(before=before, limit=limit, action=action)
    for entry in entries:
        if as_json:
            print_json(entry, indented=False)
            continue
        detail = " ".join(f"{name}={value!r}" for name, value in entry.detail.items())
        about = " ".join(filter(None, (entry.subject, detail)))
        click.echo(f"{entry.n:>6} {entry.at} {entry.action:<20} {entry.actor}  {about}".rstrip())

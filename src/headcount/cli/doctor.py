"""`headcount doctor`: check a data folder."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import click

from headcount.cli.client import CORE
from headcount.cli.export import catalog_of
from headcount.cli.options import SettingsCommand, takes_settings
from headcount.errors import SettingsError
from headcount.settings.deployment import Settings

if TYPE_CHECKING:
    from headcount.cli.progress import ProgressBar
    from headcount.services.doctor import Finding


@click.command(cls=SettingsCommand)
@click.option("--repair", is_flag=True, help="Repair what can be repaired without losing anything.")
@takes_settings("history", *CORE)
def doctor(repair: bool, settings: Settings) -> None:
    """Check a data folder for damage.

    Checks permissions, secret, streams, history, registry and audit log, also while headcount runs.

    \b
    headcount doctor
    headcount doctor --data /var/lib/headcount --repair

    Prints each problem with its remedy; exit code 1 if one is left. While nothing runs, it reads all files of
    the log, and starts a NATS server on the folder to check the registry and the audit log.
    """
    from headcount.cli.progress import ProgressBar
    from headcount.runtime.private_files import is_locked
    from headcount.services.doctor import check_folder

    data = settings.data
    if not data.is_dir():
        raise SettingsError("data", f"{data} is not a folder")
    in_use = is_locked(data / "broker.lock")
    left = 0
    with ProgressBar(delay_s=1.0) as progress:
        progress.show("reading the files")
        try:
            found = list(check_folder(data, settings.secret_file, catalog_of(settings), in_use=in_use))
        except OSError as error:
            raise SettingsError("data", f"{data} cannot be read: {error}") from error
        if any(finding.area in {"secret", "streams"} for finding in found):
            click.echo("registry and audit log: not checked, because the server cannot start on this folder")
        else:
            found += asyncio.run(_check_core(settings, progress, in_use=in_use))
    for finding in found:
        repaired = repair and finding.repair is not None and bool(finding.repair())
        left += not repaired
        click.echo(
            f"{finding.area}: {finding.problem}\n  {'repaired' if repaired else 'to do'}: {finding.remedy}"
        )
        if finding.repair is not None and not repaired:
            click.echo("  --repair does this")
    if left:
        click.echo(f"{left} problem{'s' * (left > 1)}", err=True)
        sys.exit(1)
    click.echo(f"{data} is sound.")


async def _check_core(settings: Settings, progress: ProgressBar, *, in_use: bool) -> list[Finding]:
    """Check through the running deployment, or through a server that is started for this."""
    from headcount.roles.doctor import temporary_core
    from headcount.roles.services import open_services
    from headcount.services.doctor import check_core

    if in_use:
        async with open_services(settings, "headcount doctor") as services:
            return await check_core(services, progress.show)
    progress.show("starting a NATS server")
    async with temporary_core(settings) as services:
        return await check_core(services, progress.show)

"""`headcount device import`, `export`: devices as CSV."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from headcount.cli.client import CORE, RunningDeployment, in_site, run_on_deployment
from headcount.cli.options import takes_settings
from headcount.cli.output import private_file, to_file
from headcount.devices import csv_table
from headcount.errors import DeviceError
from headcount.services.devices import secrets_table
from headcount.settings.deployment import Settings

#: An import that takes longer shows its progress.
_PROGRESS_DELAY_S = 2.0


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True, allow_dash=True))
@in_site
@to_file
@takes_settings(*CORE)
def import_(file: Path, site_id: str | None, output: Path | None, settings: Settings) -> None:
    """Register the devices of a CSV table.

    FILE has a header with the column `kind` (person or vehicle), and any of site, label, groups, aliases, gateway,
    firmware and app. Groups and aliases in one cell are separated by semicolons. If a line is not valid, no device is
    registered. Prints CSV with the id, secret and label of each device; the secrets are shown only here.

    \b
    Example:
      headcount device import people.csv --output secrets.csv
    """
    from headcount.cli.progress import ProgressBar

    rows = csv_table.parse_devices(_read(file), site_id)
    site_id = site_id or next((row.site for row in rows if row.site), None)
    site = run_on_deployment(settings, lambda running: running.site(site_id))
    # the output first: secrets that cannot be written afterwards would be lost
    with private_file(output) as out, ProgressBar(delay_s=_PROGRESS_DELAY_S) as progress:
        registered = run_on_deployment(
            settings,
            lambda running: running.services.devices.import_rows(
                running.actor, site, rows, lambda done: progress.show("registering", done / len(rows))
            ),
        )
        out.writelines(secrets_table(registered))
    click.echo(f"Devices registered: {len(registered)}", err=True)


@click.command()
@in_site
@to_file
@takes_settings(*CORE)
def export(site_id: str | None, output: Path | None, settings: Settings) -> None:
    """Write all devices of a site as CSV.

    The table has no secrets. A cell that a spreadsheet would interpret as a formula starts with an apostrophe.

    \b
    Example:
      headcount device export --output devices.csv
    """

    async def table(running: RunningDeployment) -> Iterator[str]:
        site = await running.site(site_id, or_removed=True)
        return await running.services.devices.export_table(running.actor, site)

    lines = run_on_deployment(settings, table)
    with private_file(output) as out:
        out.writelines(lines)


def _read(file: Path) -> str:
    try:
        raw = sys.stdin.buffer.read(csv_table.MAX_CHARACTERS + 1) if str(file) == "-" else file.read_bytes()
        return csv_table.decode_table(raw)
    except OSError as error:
        raise DeviceError(
            str(file), f"cannot be read: {error.strerror or error}", "Choose another file"
        ) from error

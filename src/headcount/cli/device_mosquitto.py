"""`headcount device mosquitto`: accounts for a Mosquitto in front of headcount."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from headcount.cli.client import RunningDeployment, on_deployment
from headcount.errors import DataFolderError, LogError
from headcount.runtime.private_files import folder_errors

#: Interval at which --follow polls the registry.
_POLL_INTERVAL_S = 2.0


@click.command()
@click.option(
    "--output",
    "-o",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder for the files.",
)
@click.option("--follow", is_flag=True, help="Write the files again whenever a device or ban changes.")
@click.option(
    "--pid-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with the process id of Mosquitto, which then reads the files again (SIGHUP).",
)
@on_deployment()
async def mosquitto(running: RunningDeployment, folder: Path, follow: bool, pid_file: Path | None) -> None:
    """Write the accounts of devices for a Mosquitto in front.

    Writes a password file (passwords) and an ACL file (acl) with the accounts and permissions of all devices, and once
    a password (bridge-password) for the user headcount-bridge, with which `headcount run bridge` reads from
    Mosquitto. Hashes of secrets are copied as they are: the registry stores them in Mosquitto's format.

    \b
    Examples:
      headcount device mosquitto --output /etc/mosquitto/headcount
      headcount device mosquitto --output /etc/mosquitto/headcount --follow --pid-file /run/mosquitto/mosquitto.pid
    """
    from headcount.bridge.source import default_topics
    from headcount.decoders.plugins import formats
    from headcount.runtime.signals import reload_program
    from headcount.services.mosquitto import MosquittoAccounts

    services = running.services
    accounts = MosquittoAccounts(services.client, services.registry, services.bans)
    written: tuple[int, ...] | None = None
    while True:
        try:
            revision = await accounts.revision()
            if revision != written:
                with folder_errors(folder):
                    number = await accounts.write(folder, default_topics(formats()))
                if pid_file is not None and not reload_program(pid_file, "mosquitto"):
                    click.echo(
                        f"{pid_file}: Mosquitto does not run; it reads the files at its start", err=True
                    )
                written = revision
                click.echo(f"Accounts written: {number}", err=True)
        except (LogError, DataFolderError, PermissionError) as error:
            if not follow or written is None:
                raise
            click.echo(f"{error}; trying again", err=True)
        if not follow:
            return
        await asyncio.sleep(_POLL_INTERVAL_S)

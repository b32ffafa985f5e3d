"""`headcount run` and `headcount scale`: one role in this process."""

from __future__ import annotations

import asyncio
import os

import click

from headcount.cli.options import SettingsCommand, takes_settings
from headcount.cli.up import require_site
from headcount.settings.bridge import BRIDGE_GROUP
from headcount.settings.deployment import CLUSTER, DEPLOYMENT_GROUPS, Settings
from headcount.settings.proxy import PROXY_GROUP
from headcount.settings.scaling import SCALE_GROUPS

_DESCRIPTIONS = {
    "core": "the log and the state that all units share: one node, or three",
    "broker": "receives devices' messages and forwards them to the core",
    "count": "counts its share of the partitions",
    "history": "stores the last 24 hours",
    "adapters": "translates other message formats",
    "bridge": "copies messages of another broker or bus",
    "devices": "manages devices and their data; on one machine, authenticates devices",
    "api": "HTTP: map, API, metrics",
    "proxy": "balances connections across brokers and APIs (HAProxy); settings: [proxy]",
    "scale": "adds and removes brokers and workers; settings: [scale]",
}


_RUN_HELP = """Run one role in this process.

\b
headcount run core
headcount run broker --core core-0:4222
headcount run count --site campus.geojson --core core-0:4222
headcount run bridge --from mqtts://broker.example --bridge-user headcount --bridge-password-file password

\b
""" + "\n".join(f"{name:<9} {text}" for name, text in _DESCRIPTIONS.items())


@click.command(cls=SettingsCommand, help=_RUN_HELP)
@click.argument("role", type=click.Choice(list(_DESCRIPTIONS)))
@takes_settings(*DEPLOYMENT_GROUPS, CLUSTER, BRIDGE_GROUP, hidden=(*SCALE_GROUPS, PROXY_GROUP))
def run(role: str, settings: Settings) -> None:
    """Run one role until SIGINT or SIGTERM."""
    _run(role, settings)


@click.command(cls=SettingsCommand)
@takes_settings(*SCALE_GROUPS, *DEPLOYMENT_GROUPS, CLUSTER)
def scale(settings: Settings) -> None:
    """Add and remove brokers and workers as the load changes.

    \b
    headcount scale --dry-run
    headcount scale --max-workers 8 --max-brokers 4
    headcount scale --driver docker --image headcount --network headcount --secret-file secret

    It is `headcount run scale` with the settings of the section [scale] as flags. `GET /v1/system/scaling`
    returns what it measures and why it decides what it decides.
    """
    _run("scale", settings)


def _run(role: str, settings: Settings) -> None:
    """Run a role until SIGINT or SIGTERM."""
    from headcount.roles import REPORTING, ROLES, load, load_reporting
    from headcount.roles.endpoints import health_url
    from headcount.runtime.heartbeat import beating
    from headcount.runtime.logs import configure_logging
    from headcount.runtime.private_files import PRIVATE_UMASK
    from headcount.runtime.signals import run_role

    if ROLES[role]:
        require_site(settings)
    os.umask(PRIVATE_UMASK)
    configure_logging(role, settings.log_level or "INFO")

    async def work(stop: asyncio.Event) -> None:
        async with beating(settings.heartbeat_file, health_url(role, settings)) as report:
            if role in REPORTING:
                await load_reporting(role)(settings, stop, report)
            else:
                await load(role)(settings, stop)

    asyncio.run(run_role(work))

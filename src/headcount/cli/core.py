"""For commands that work at the core of a running deployment: its options, and the connection."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import nats
import nats.errors
from nats.aio.client import Client

from headcount.broker.nats_config import INTERNAL
from headcount.cli.options import takes_settings
from headcount.errors import LogUnavailableError, SettingsError
from headcount.messaging.connection import Endpoint
from headcount.roles.secret import secret_of
from headcount.settings.deployment import Settings

CONNECT_S = 5.0


#: The settings by which the core is found.
CORE = ("data", "nats_port", "core", "secret_file")
core_options = takes_settings(*CORE)
#: The same, and the site.
core_and_site_options = takes_settings("site", *CORE)


@contextlib.asynccontextmanager
async def at_the_core(settings: Settings) -> AsyncIterator[Client]:
    """A connection with all rights to one of the core's nodes.

    Raises:
        SettingsError: the deployment has no secret there.
        LogUnavailableError: nobody answers.
    """
    if settings.secret_file is None and not (settings.data / "secret").is_file():
        raise SettingsError(
            "data", f"{settings.data} is not the data folder of a deployment; it holds no secret"
        )
    log = Endpoint(settings.core_addresses, INTERNAL, secret_of(settings))
    try:
        client = await nats.connect(
            log.urls,
            user=log.user,
            password=log.password,
            name="headcount command line",
            allow_reconnect=False,
            max_reconnect_attempts=1,  # else it is tried for two minutes
            reconnect_time_wait=0.2,
            connect_timeout=CONNECT_S,
            error_cb=_quiet,
        )
    except (nats.errors.Error, OSError, TimeoutError) as error:
        problem = (
            f"{log}: the core doesn't answer: {error!r}. Is headcount running, and is --data its folder?"
        )
        raise LogUnavailableError(problem) from error
    try:
        yield client
    finally:
        await client.close()


async def _quiet(_: Exception) -> None:
    """Errors are raised where they matter."""

"""For commands that work at the core of a running deployment: its options, and the connection."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from headcount.broker.nats_config import INTERNAL
from headcount.cli.options import takes_settings
from headcount.errors import LogUnavailableError, SettingsError
from headcount.messaging.connection import Connection, Endpoint, connected_once
from headcount.roles.secret import secret_of
from headcount.settings.deployment import Settings

CONNECT_S = 5


#: The settings by which the core is found.
CORE = ("data", "nats_port", "core", "secret_file")
core_options = takes_settings(*CORE)
#: The same, and the site.
core_and_site_options = takes_settings("site", *CORE)


@contextlib.asynccontextmanager
async def at_the_core(settings: Settings) -> AsyncIterator[Connection]:
    """A connection with all rights to one of the core's nodes.

    Raises:
        SettingsError: the deployment has no secret there.
        LogUnavailableError: no node answers.
    """
    if settings.secret_file is None and not (settings.data / "secret").is_file():
        raise SettingsError(
            "data", f"{settings.data} is not the data folder of a deployment; it holds no secret"
        )
    core = Endpoint(settings.core_addresses, INTERNAL, secret_of(settings))
    connecting = connected_once(core, "headcount command line", connect_timeout_s=CONNECT_S)
    async with contextlib.AsyncExitStack() as stack:
        try:
            connection = await stack.enter_async_context(connecting)
        except LogUnavailableError as error:
            problem = f"{core}: the core doesn't answer: {error.__cause__!r}. Is headcount running, and is --data its folder?"
            raise LogUnavailableError(problem) from error
        yield connection

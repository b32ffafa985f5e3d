"""The services of a running deployment, for a program that is not one of its roles."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from headcount.errors import LogUnavailableError, SettingsError
from headcount.messaging.connection import connected_once
from headcount.roles.endpoints import core_endpoint
from headcount.services.container import Services
from headcount.settings.deployment import Settings
from headcount.settings.formats import joined

CONNECT_TIMEOUT_S = 5


@contextlib.asynccontextmanager
async def open_services(settings: Settings, name: str) -> AsyncIterator[Services]:
    """Open the services over a connection of this name to one of the core's nodes; it is not re-established.

    Raises:
        SettingsError: the data folder is not a deployment's, or its secret cannot be read.
            No node answers, or none accepts the secret.
    """
    if settings.secret_file is None and not (settings.data / "secret").is_file():
        raise SettingsError(
            "data", f"{settings.data} is not the data folder of a deployment; it holds no secret"
        )
    core = core_endpoint(settings)
    async with contextlib.AsyncExitStack() as stack:
        connecting = connected_once(core, name, connect_timeout_s=CONNECT_TIMEOUT_S)
        try:
            connection = await stack.enter_async_context(connecting)
        except LogUnavailableError as error:
            where = joined(*core.addresses)
            if "authorization" in str(error.__cause__).lower():
                secret = "secret_file" if settings.secret_file else "data"
                raise SettingsError(secret, f"the core at {where} does not accept its secret") from error
            raise SettingsError(
                "core" if settings.core else "nats_port",
                f"no core answers at {where}: {error.__cause__}. Is headcount running? "
                f"--data names its data folder ({settings.data})",
            ) from error
        yield Services(connection, core.password)

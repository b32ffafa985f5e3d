"""For commands that work at the core of a running deployment: its options, and the connection."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import click
import nats
import nats.errors
from nats.aio.client import Client

from headcount.broker.nats_config import INTERNAL
from headcount.cli.cluster import cluster_options
from headcount.errors import LogUnavailableError, SettingsError
from headcount.messaging.connection import Endpoint
from headcount.roles.secret import secret_of
from headcount.settings import DEFAULT_DATA, DEFAULT_SITE, Settings, site_path

CONNECT_S = 5.0


def core_options(*, site: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options by which the core is found; the command gets them as `settings`. With `site`, its site file too."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def with_settings(
            *args: Any,
            data: Path,
            nats_port: int,
            core: str,
            secret_file: Path | None,
            site: Path | None = None,
            **more: Any,
        ) -> None:
            settings = Settings(
                site=site_path(site) or DEFAULT_SITE,
                data=data,
                nats_port=nats_port,
                core=core,
                secret_file=secret_file,
            )
            function(*args, settings=settings, **more)

        options: list[Callable[..., Any]] = [
            click.option(
                "--data",
                type=click.Path(path_type=Path, file_okay=False),
                default=DEFAULT_DATA,
                envvar="HEADCOUNT_DATA",
                show_default=True,
                show_envvar=True,
                help="The deployment's folder, for its secret.",
            ),
            click.option(
                "--nats-port",
                type=click.IntRange(1, 65535),
                default=4222,
                envvar="HEADCOUNT_NATS_PORT",
                show_default=True,
                show_envvar=True,
                help="Port of NATS on this machine.",
            ),
            cluster_options("core", "secret_file"),
        ]
        if site:
            options.append(
                click.option(
                    "--site",
                    type=click.Path(path_type=Path, dir_okay=False),
                    envvar="HEADCOUNT_SITE",
                    show_envvar=True,
                    help="Site file (GeoJSON). Default: site.geojson in this folder.",
                )
            )
        made: Callable[..., None] = with_settings
        for option in reversed(options):
            made = option(made)
        return made

    return add


@contextlib.asynccontextmanager
async def at_the_core(settings: Settings) -> AsyncIterator[Client]:
    """A connection with all rights to one of the core's nodes.

    Raises:
        SettingsError: the deployment has no secret there.
        LogUnavailableError: nobody answers.
    """
    if settings.secret_file is None and not (settings.data / "secret").is_file():
        raise SettingsError("--data", f"{settings.data} is no folder of a deployment: it has no secret in it")
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

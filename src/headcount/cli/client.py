"""Commands on a running deployment: the settings that find its core, and its services."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from headcount.cli import LAYERS
from headcount.cli.options import Command, takes_settings
from headcount.settings.deployment import PORT_FILE, Settings
from headcount.settings.layers import Layers

if TYPE_CHECKING:  # loaded when a command runs, so that --help is fast
    from headcount.access.roles import Caller
    from headcount.services.container import Services

T = TypeVar("T")
in_site = click.option("--site", "site_id", metavar="ID", help="Id of the site.  [default: the only one]")
#: The settings that find the core.
CORE = ("data", "nats_port", "core", "secret_file")


@dataclass(frozen=True, slots=True)
class RunningDeployment:
    """A deployment that a command is connected to."""

    settings: Settings
    services: Services

    @property
    def actor(self) -> Caller:
        """The command line, for the audit log."""
        from headcount.services.actors import COMMAND_LINE

        return COMMAND_LINE

    async def site(self, id_: str | None, *, or_removed: bool = False) -> str:
        """The id of a site that the deployment counts (or counted): the one that is named, or the only one.

        Raises:
            UnknownSiteError: it is not counted, or none is named and several are counted.
        """
        if id_ is not None and or_removed:
            return (await self.services.sites.history(id_))[-1].site
        return (await self.services.sites.chosen(id_)).site


def on_deployment(*keys: str) -> Callable[[Callable[..., Awaitable[None]]], Command]:
    """Make a command of a coroutine function that takes a `RunningDeployment` first.

    `keys` are settings that the command takes beside those that find the core.
    """

    def decorate(function: Callable[..., Awaitable[None]]) -> Command:
        @takes_settings(*keys, *CORE)
        @functools.wraps(function)
        def command(*args: Any, settings: Settings, **values: Any) -> None:
            run_on_deployment(settings, lambda running: function(running, *args, **values))

        return command

    return decorate


def run_on_deployment(settings: Settings, work: Callable[[RunningDeployment], Awaitable[T]]) -> T:
    """Connect to a deployment, and return the result of `work` on it.

    Raises:
        SettingsError: the deployment's secret cannot be read, or the core does not answer.
    """
    import asyncio

    from headcount.roles.services import open_services

    found = _with_port(settings)

    async def connected() -> T:
        async with open_services(found, "headcount command line") as services:
            return await work(RunningDeployment(found, services))

    return asyncio.run(connected())


def _with_port(settings: Settings) -> Settings:
    """The settings, with the NATS port from the data folder where the user gave neither a port nor a core."""
    layers: Layers = click.get_current_context().meta[LAYERS]
    if layers.has("nats_port") or layers.has("core"):
        return settings
    with contextlib.suppress(OSError, ValueError):
        return replace(settings, nats_port=int((settings.data / PORT_FILE).read_text()))
    return settings

"""The role `broker`: a leaf of the core that lets devices in, and its agent."""

from __future__ import annotations

import asyncio
import dataclasses

from headcount.broker import agent
from headcount.roles.endpoints import core_endpoint
from headcount.roles.server_config import rate_limits_of, standalone_config
from headcount.settings.deployment import Settings

#: In the data folder: what broker units need while they run.
UNITS = "units"


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run a broker unit until `stop` is set and its devices have been sent away."""
    config = dataclasses.replace(
        standalone_config(settings),
        data=settings.data / UNITS / settings.name,
        internal_host=settings.internal_host,
        hub=settings.core_leaf_addresses,
        replicas=3 if len(settings.core_addresses) == 3 else 1,
        server_name=settings.name,
    )
    unit = agent.AgentSettings(
        name=settings.name,
        config=config,
        core=core_endpoint(settings),
        host=settings.advertised,
        health_port=settings.health_port,
        drain_s=settings.drain_s,
        stop_s=settings.stop_s,
        limits=rate_limits_of(settings),
    )
    await agent.run(unit, stop)

"""The role `scale`: as many brokers and workers as the traffic needs."""

from __future__ import annotations

import asyncio
import dataclasses
from zoneinfo import ZoneInfo

from headcount.errors import SettingsError
from headcount.roles.endpoints import core_endpoint
from headcount.roles.site import site_summary
from headcount.scaling import scaler
from headcount.settings.deployment import Settings
from headcount.settings.formats import joined


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Scale until `stop` is set.

    Raises:
        SettingsError: the driver can't work with these settings.
    """
    if settings.scale.driver == "docker" and settings.secret_file is None:
        raise SettingsError("secret_file", "containers need the deployment's secret: name the file to mount")
    # units have ports of their own, but the core's stay
    units = dataclasses.replace(
        settings, core=joined(*settings.core_addresses), core_mqtt=joined(*settings.core_mqtt_addresses)
    )
    # days begin at midnight where the site is; in UTC without a site file
    zone = ZoneInfo(site_summary(settings).timezone if settings.site.exists() else "UTC")
    deployment = scaler.Deployment(
        name=settings.name,
        log=core_endpoint(settings),
        data=settings.data,
        environment=units.environment(),
        drain_s=settings.drain_s,
        stop_s=settings.stop_s,
        zone=zone,
    )
    await scaler.run(settings.scale, deployment, stop)

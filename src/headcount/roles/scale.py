"""The role `scale`: as many brokers and workers as the traffic needs."""

from __future__ import annotations

import asyncio
import os
from zoneinfo import ZoneInfo

from headcount.errors import SettingsError
from headcount.roles.endpoints import core_endpoint
from headcount.roles.site import site_of
from headcount.scaling import scaler
from headcount.scaling.scale_settings import ScaleSettings
from headcount.settings import ENVIRONMENT, Settings, joined


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Scale with the settings of the environment until `stop` is set."""
    await run_with(settings, ScaleSettings.from_environment(os.environ), stop)


async def run_with(settings: Settings, chosen: ScaleSettings, stop: asyncio.Event) -> None:
    """Scale with these settings of the scaler until `stop` is set.

    Raises:
        SettingsError: the driver can't work with these settings.
    """
    if chosen.driver == "docker" and settings.secret_file is None:
        raise SettingsError(
            "--secret-file", "containers need the deployment's secret: name the file to mount"
        )
    # units have ports of their own, but the core's stay
    own = {
        f"{ENVIRONMENT}CORE": joined(*settings.core_addresses),
        f"{ENVIRONMENT}CORE_MQTT": joined(*settings.core_mqtt_addresses),
    }
    # days begin at midnight where the site is; in UTC without a site file
    zone = ZoneInfo(site_of(settings).timezone if settings.site.exists() else "UTC")
    deployment = scaler.Deployment(
        name=settings.name,
        log=core_endpoint(settings),
        data=settings.data,
        environment={**settings.environment(), **own},
        drain_s=settings.drain_s,
        stop_s=settings.stop_s,
        zone=zone,
    )
    await scaler.run(chosen, deployment, stop)

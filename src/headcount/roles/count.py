"""The role `count`: a counting worker."""

from __future__ import annotations

import asyncio
import gc
import sys

from headcount.counting.disclosure import disclosure_key
from headcount.errors import SettingsError
from headcount.roles.endpoints import core_endpoint
from headcount.roles.mqtt import mqtt_addresses
from headcount.roles.secret import secret_of
from headcount.settings.deployment import Settings
from headcount.sites.files import load_site
from headcount.worker import loops


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Count a share of the partitions until `stop` is set.

    Raises:
        SettingsError: the hashes of strings are not random.
    """
    if not sys.flags.hash_randomization:
        raise SettingsError(
            "PYTHONHASHSEED",
            "is fixed, which lets devices choose names that collide in the index of devices; unset it",
        )
    # batches are hundreds of thousands of short-lived objects without cycles
    gc.set_threshold(200_000, 20, 100)
    worker = loops.WorkerSettings(
        load_site(settings.site),
        core_endpoint(settings),
        mqtt_addresses(settings),
        settings.partitions,
        settings.smallest_shown,
        disclosure_key(secret_of(settings).encode()),
        settings.speed,
    )
    await loops.run(worker, stop)

"""The versions of the site that a process keeps current."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import nats_fixture
from headcount.messages.topics import INTERNAL
from headcount.messaging import site_versions
from headcount.messaging.connection import Connection, Endpoint, connected
from headcount.messaging.site_versions import SiteFollower, deployment_sites
from headcount.runtime.tasks import background
from small_site import small_site


async def test_they_are_read_as_soon_as_there_is_a_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that starts before the core doesn't wait for its next poll: counts can't be used without a site."""
    monkeypatch.setattr(site_versions, "POLL_INTERVAL_S", 3600.0)
    async with nats_fixture.open_broker(tmp_path) as broker:
        endpoint = Endpoint((("127.0.0.1", broker.config.nats_port),), INTERNAL, broker.config.password)
        async with connected(endpoint, "a role with the first version") as other:
            await deployment_sites(other, small_site(), 1.0)
        connection, found = Connection(), asyncio.Event()
        follower = SiteFollower(connection, small_site())
        async with background(follower.run(found.set), "site"):
            await asyncio.sleep(0)  # its first question fails
            async with connected(endpoint, "this role", connection=connection, on_connect=follower.wake):
                async with asyncio.timeout(60):
                    await found.wait()
        assert follower.complete_s > 0

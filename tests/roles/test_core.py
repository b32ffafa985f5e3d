"""The role `core` in a container: what its health check learns."""

from __future__ import annotations

import asyncio
from pathlib import Path

from headcount.roles import core
from headcount.runtime.ports import free_ports
from headcount.settings.deployment import Settings
from waiting import until


async def test_a_core_is_healthy_when_it_is_ready(tmp_path: Path) -> None:
    """A core reports that it is not ready, and then no problem; its NATS server has no HTTP monitor."""
    nats, mqtt, leaf = free_ports(3)
    settings = Settings(
        data=tmp_path / "data", nats_port=nats, mqtt_port=mqtt, leaf_port=leaf, devices=False, tls="off"
    )
    reports: list[str] = []
    stop = asyncio.Event()
    running = asyncio.create_task(core.run(settings, stop, reports.append))
    await until(lambda: reports and not reports[-1])
    assert reports[0] == "the NATS server is not ready"
    configuration = (tmp_path / "data" / "broker.conf").read_text()
    assert "http" not in configuration
    assert "monitor" not in configuration
    stop.set()
    await running

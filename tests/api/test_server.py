"""The role: where it listens, and against the product's own broker with its password."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from pathlib import Path

import pytest

from api_fixture import Api, app_without_broker, open_api, serving, site_with, status_is
from headcount.api.api_settings import ApiSettings
from headcount.api.server import run
from headcount.broker.nats_config import SYSTEM
from headcount.errors import PortTakenError, SettingsError
from headcount.messaging.connection import Endpoint
from headcount.runtime.ports import free_ports
from nats_fixture import endpoint_of, internal_client, open_broker
from waiting import until

PASSWORD = "a secret of tests"  # noqa: S105  # not a real one


def settings(folder: Path) -> ApiSettings:
    """ApiSettings whose broker isn't there."""
    core = Endpoint((("127.0.0.1", free_ports(1)[0]),), "u", PASSWORD)
    return ApiSettings(site_with(1), core, folder, 2)


async def test_taken_port(tmp_path: Path) -> None:
    """A taken port is an error that names the port and the option."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTakenError, match=f"HTTP port 127.0.0.1:{port} is taken.*--http-port"):
            await run(settings(tmp_path), host="127.0.0.1", port=port, stop=asyncio.Event())


async def test_impossible_address(tmp_path: Path) -> None:
    """An address that isn't this machine's is an error that names it."""
    with pytest.raises(SettingsError, match=r"192\.0\.2\.1"):
        await run(settings(tmp_path), host="192.0.2.1", port=0, stop=asyncio.Event())


async def test_starts_without_broker(tmp_path: Path) -> None:
    """Without a broker the API starts, is alive, is not ready, has no counts, and stops."""
    async with open_api(tmp_path) as other:
        alone = dataclasses.replace(settings(tmp_path), web=tmp_path)
        async with serving(alone, other.broker, other.nats) as api:
            assert (await api.get("/healthz")).status_code == 200
            assert (await api.get("/readyz")).status_code == 503
            assert (await api.get("/v1/sites/ul/counts")).status_code == 503


def test_password_is_not_shown(tmp_path: Path) -> None:
    """The password is in no text of the settings."""
    assert PASSWORD not in repr(settings(tmp_path))
    assert app_without_broker(tmp_path).debug is False


async def test_with_the_products_own_broker(tmp_path: Path) -> None:
    """Against the broker as `headcount up` runs it: rights, streams, monitoring and counts fit together."""
    async with open_broker(tmp_path / "data", partitions=2) as broker:
        client = await internal_client(broker)
        real = ApiSettings(
            site=site_with(3),
            core=endpoint_of(broker),
            data=tmp_path / "data",
            partitions=2,
            system=dataclasses.replace(endpoint_of(broker), user=SYSTEM),
            open=True,
            smallest_shown=1,
        )
        async with serving(real, None, client) as api:
            await api.count({"site": (8, 1)})
            await counted(api)
        async with serving(real, None, client) as again:
            await until(lambda: status_is(again, "/v1/sites/ul/counts", 200))
            await counted(again)
            assert "headcount_broker_connections 2.0" in (await again.get("/metrics")).text
        await client.close()


async def counted(api: Api) -> None:
    """The numbers that were published are served."""
    counts = await api.json("/v1/sites/ul/counts")
    assert counts["zones"][0]["person"]["count"] == 8

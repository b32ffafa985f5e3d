"""An auth service that polls all connections while devices sign in."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiomqtt
import pytest

from headcount.broker import auth_service as gates
from headcount.broker.auth_service import AuthService, AuthServiceSettings
from headcount.devices.registry import Registry
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import DEVICE_BUCKET
from nats_fixture import PASSWORD, internal_client, open_broker
from waiting import BUSY_S, until

DEVICES = 10
ROUNDS = 10


async def test_a_sign_in_survives_a_poll(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that is signing in during a poll is admitted."""
    monkeypatch.setattr(gates, "POLL_INTERVAL_S", 0.0)
    monkeypatch.setattr(gates, "POLL_SHARE", 1000.0)
    async with open_broker(tmp_path, anonymous=False) as broker:
        core = await internal_client(broker)
        registry = Registry(KvBucket(Connection(core), DEVICE_BUCKET), PASSWORD)
        made = [await registry.add("ul", "person") for _ in range(DEVICES)]
        gate = AuthService(
            AuthServiceSettings("test", (("127.0.0.1", broker.config.nats_port),), PASSWORD, direct=True)
        )
        decide = gate._reply

        async def slowly(*arguments: object) -> None:
            await asyncio.sleep(0.02)  # so that polls fall into sign-ins
            await decide(*arguments)  # type: ignore[arg-type]  # whatever it gets

        gate._reply = slowly  # type: ignore[method-assign, assignment]
        async with gate.opened(Connection(core)):
            await until(lambda: gate.problem is None)
            for number in range(ROUNDS):
                async with asyncio.TaskGroup() as attempts:
                    for device, secret in made:
                        attempts.create_task(
                            come_in(broker.config.mqtt_port, device.id, secret, f"{device.id}-{number}")
                        )
        assert gate.figures.cut == 0
        assert gate.figures.admitted == DEVICES * ROUNDS
        await core.close()


async def come_in(port: int, user: str, password: str, client_id: str) -> None:
    """Sign in, and leave."""
    async with aiomqtt.Client(
        "127.0.0.1", port, username=user, password=password, identifier=client_id, timeout=BUSY_S
    ):
        pass

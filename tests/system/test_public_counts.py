"""A whole system that isn't open: what anybody gets of its counts."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import aiomqtt
import msgspec
import nats
import pytest

from headcount.messages.fixes import encode_fix
from system.running import Up
from waiting import wait_until

#: In the library of the site that comes with headcount.
LIBRARY = "glucksman-library"
LAT, LON = 52.67345, -8.57312
PEOPLE = 3


@pytest.mark.slow
def test_three_people_are_fewer_than_five(tmp_path: Path) -> None:
    """Public counts are `<5` over HTTP and on the retained topic, by the minute; exact ones are 3 for our roles."""
    with Up(tmp_path, open=False) as up:
        first = up.get("/v1/sites/ul/counts")
        assert first.status_code == 200, "there are public counts when headcount is ready"
        assert {zone["person"]["count"] for zone in first.json()["zones"]} == {"<5"}
        secret = up.password
        asyncio.run(_send(up, secret))
        heard = asyncio.run(_receive(up, secret, f"headcount/ul/exact/{LIBRARY}", PEOPLE))
        assert heard["person"]["count"] == PEOPLE

        def published() -> Any:
            answer = up.get(f"/v1/sites/ul/zones/{LIBRARY}")
            return answer.status_code == 200 and answer.json()

        body = wait_until(published, "public counts", every_s=1)
        nobody = {"count": "<5", "low": None, "high": None, "stale": None}
        assert all(nobody.items() <= body[kind].items() for kind in ("person", "vehicle"))
        assert body["at"].endswith(":00.000Z")
        retained = asyncio.run(_receive(up, secret, f"headcount/ul/counts/{LIBRARY}", "<5"))
        assert retained["person"] == retained["vehicle"] == nobody
        assert up.get("/metrics").status_code == 401


async def _send(up: Up, secret: str) -> None:
    """Fixes of some people, as the broker's own side may send them."""
    client = await nats.connect(f"nats://127.0.0.1:{up.ports['nats']}", user="headcount", password=secret)
    for n in range(PEOPLE):
        handle = "abcdefghijklmnopqrs" + "234567"[n]
        await client.publish(f"headcount.ul.person.{handle}.fix", encode_fix(time.time(), LAT, LON, acc=5.0))
    await client.flush()
    await client.close()


async def _receive(up: Up, secret: str, topic: str, people: object) -> Any:
    """The message of a topic whose number of people is `people`."""
    async with (
        asyncio.timeout(120),
        aiomqtt.Client("127.0.0.1", up.ports["mqtt"], username="headcount", password=secret) as client,
    ):
        await client.subscribe(topic)
        async for message in client.messages:
            body = msgspec.json.decode(message.payload)
            if body["person"]["count"] == people:
                return body
    return None

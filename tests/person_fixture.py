"""A running API with everything that is about single devices: registry, commands, day keys, the log.

async with open_people(tmp_path) as people:
    phone = await people.phone()                    # a registered device
    await people.fix(phone, t, lat, lon)            # into the log, as its broker stores it
    await people.ask(phone, "GET", "/v1/me")
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from nats.aio.msg import Msg

from api_fixture import PARTITIONS, Api, open_api
from headcount.messages.fixes import encode_fix
from headcount.messages.records import AccessRole, Device
from headcount.messages.topics import partition_of
from headcount.messaging.connection import Connection
from headcount.messaging.streams import ensure_streams

#: In the library of the fixture's site, and far outside of it.
LIBRARY, OUTSIDE = (52.6725, -8.5725), (52.69, -8.5725)


@dataclass(frozen=True)
class Phone:
    """A registered device and its secret."""

    device: Device
    secret: str

    @property
    def id(self) -> str:
        """Its handle."""
        return self.device.id

    def headers(self, secret: str | None = None) -> dict[str, str]:
        """How it signs in."""
        text = base64.b64encode(f"{self.id}:{secret or self.secret}".encode()).decode()
        return {"authorization": f"Basic {text}"}


@dataclass
class People:
    """The API, and hands in the place of devices and operators."""

    api: Api

    async def phone(self, **fields: Any) -> Phone:
        """A new device."""
        return Phone(*await self.api.services.registry.add("ul", "person", **fields))

    async def fix(self, phone: Phone, t_s: float, lat: float, lon: float, **fields: float) -> None:
        """A fix, in the log."""
        partition = partition_of("ul", phone.id, PARTITIONS)
        subject = f"fix.{partition}.ul.person.{phone.id}"
        await self.api.nats.jetstream().publish(subject, encode_fix(t_s, lat, lon, **fields))

    async def token(self, role: AccessRole) -> dict[str, str]:
        """The header of a new token."""
        _, text = await self.api.services.token_store.add("test", role)
        return {"authorization": f"Bearer {text}"}

    async def ask(self, phone: Phone, method: str, path: str, **options: Any) -> httpx.Response:
        """A request of the device itself."""
        headers = phone.headers() | options.pop("headers", {})
        return await self.api.http.request(method, path, headers=headers, **options)

    async def worker(self, phone: Phone, state: dict[str, Any]) -> None:
        """Stand in for the worker that counts this device."""

        async def answer(message: Msg) -> None:
            asked = json.loads(message.data)
            await message.respond(json.dumps(state if asked["device"] == phone.id else None).encode())

        await self.api.nats.subscribe(f"ask.{partition_of('ul', phone.id, PARTITIONS)}", cb=answer)
        await self.api.nats.flush()


@asynccontextmanager
async def open_people(folder: Path, **limits: Any) -> AsyncIterator[People]:
    """A broker with all streams, and the API on it: with accounts, unless `limits` has `open`."""
    async with open_api(folder, with_stream=False, **({"open": False} | limits)) as api:
        await ensure_streams(Connection(api.nats), PARTITIONS, store_bytes=1 << 30)
        yield People(api)

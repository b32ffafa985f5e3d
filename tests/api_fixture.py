"""A running API for a test: real HTTP on a free port, a real broker, and a hand in a worker's place.

async with open_api(tmp_path) as api:
    await api.count({"site": (412, 3)})          # all partitions report, now
    answer = await api.get("/v1/sites/ul/counts")
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import nats
import numpy as np
from fastapi import FastAPI
from nats.aio.client import Client

from headcount.api.api_settings import ApiSettings
from headcount.api.app import create_app
from headcount.api.server import run
from headcount.counting.fix_columns import I4
from headcount.counting.site import Site
from headcount.counting.site_file import parse_site
from headcount.messages.counts import PartitionCounts, encode_counts
from headcount.messages.topics import AUDIT_STREAM, COUNT_STREAM
from headcount.messaging.connection import Connection, Endpoint
from headcount.messaging.streams import StreamSizes, stream_configs
from headcount.runtime.ports import free_ports
from headcount.services.container import Services
from nats_fixture import server_program
from waiting import until

PARTITIONS = 2
SECRET = "a deployment's secret, of tests"  # noqa: S105  # a test value
#: Anybody sees what a viewer does, and all counts.
OPEN: dict[str, Any] = {"open": True, "smallest_shown": 1}


def square(west: float, south: float, side: float) -> dict[str, Any]:
    """A square as GeoJSON."""
    east, north = west + side, south + side
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def site_with(zones: int) -> Site:
    """The site `ul` with the boundary and `zones` zones: `library`, `z1`, `z2` and so on."""
    names = ["library", *(f"z{n}" for n in range(1, zones))]
    features = [
        {
            "type": "Feature",
            "geometry": square(-8.58, 52.66, 0.02),
            "properties": {"role": "site", "id": "ul", "name": "Campus <UL>", "timezone": "Europe/Dublin"},
        }
    ]
    features += [
        {
            "type": "Feature",
            "geometry": square(-8.573 + 0.0001 * (n % 50), 52.672, 0.001),
            "properties": {"role": "zone", "id": name, "name": name, "type": "building"},
        }
        for n, name in enumerate(names)
    ]
    return parse_site({"type": "FeatureCollection", "features": features}, "test")


def app_without_broker(folder: Path, **changes: Any) -> FastAPI:
    """The application, not started: enough for what needs no broker. Open, where nothing else is asked for."""
    settings = ApiSettings(
        site_with(2), Endpoint((("127.0.0.1", 1),), "", ""), folder / "data", 2, web=folder / "web"
    )
    return create_app(replace(settings, **{**OPEN, **changes}))


def ask(
    folder: Path,
    path: str,
    *,
    client: str = "127.0.0.1",
    changes: dict[str, Any] | None = None,
    **options: Any,
) -> httpx.Response:
    """The application's answer to a client of any address; `changes` go into its `ApiSettings`."""

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(app_without_broker(folder, **(changes or {})), client=(client, 4711))
        host = options.pop("base_url", "http://127.0.0.1:8080")
        method = options.pop("method", "GET")
        async with httpx.AsyncClient(transport=transport, base_url=host) as http:
            return await http.request(method, path, **options)

    return asyncio.run(get())


class Server:
    """A NATS server without passwords, that can be killed and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        """Keep its files in a folder."""
        (self.port,) = free_ports(1)
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it, and return when it accepts connections."""
        program = await asyncio.to_thread(program_path)
        options = ["-a", "127.0.0.1", "-p", str(self.port)]
        self._process = await asyncio.create_subprocess_exec(
            program, *options, "-js", "-sd", str(self._folder), stderr=asyncio.subprocess.DEVNULL
        )

        async def accepts() -> bool:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return True
            return False

        await until(accepts, "the server accepts connections")

    async def kill(self) -> None:
        """Kill it without a clean end."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


def program_path() -> str:
    """The nats-server that the product itself would take."""
    return str(server_program())


@dataclass
class Api:
    """A running API, its broker, and what it takes to stand in for a worker."""

    base: str
    http: httpx.AsyncClient
    broker: Server | None  # None where the test has another one
    nats: Client
    site: Site
    settings: ApiSettings
    stop: asyncio.Event
    serving: asyncio.Task[None]
    epoch: int = 1
    last: float = field(default=0.0)
    _services: Services | None = None

    @property
    def services(self) -> Services:
        """The operations on the deployment, over the test's own connection."""
        if self._services is None:
            self._services = Services(Connection(self.nats), self.settings.secret)
        return self._services

    async def get(self, path: str, **options: Any) -> httpx.Response:
        """GET a path."""
        return await self.http.get(path, **options)

    async def json(self, path: str, **options: Any) -> Any:
        """The JSON of a path that answers 200, once the API is connected to the core."""

        async def connected() -> httpx.Response | None:
            answer = await self.get(path, **options)
            return None if answer.status_code == 503 and "/problems/log-away" in answer.text else answer

        answer: httpx.Response = await until(connected, "a connection to the core")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def tick(self) -> float:
        """The current instant of the grid, later than all before."""
        self.last = max(self.last + 0.1, int(time.time() * 10) / 10)
        return round(self.last, 1)

    async def publish(self, partition: int, at: float, values: I4) -> None:
        """Report for a partition, as its worker does."""
        counts = PartitionCounts(
            site=self.site.id,
            partition=partition,
            partitions=self.settings.partitions,
            epoch=self.epoch,
            seq=1,
            at=at,
            site_version=1,
            zones=len(values),
            values=values.astype("<i4").tobytes(),
        )
        await self.nats.publish(f"count.{partition}.{self.site.id}", encode_counts([counts]))
        await self.nats.flush()

    def values(self, numbers: dict[str, tuple[int, int]]) -> I4:
        """Counts of some zones (people, vehicles), the others empty."""
        values: I4 = np.zeros((len(self.site.zones), 2, 4), np.int32)
        for i, zone in enumerate(self.site.zones):
            people, vehicles = numbers.get(zone.id, (0, 0))
            values[i] = [[people, max(0, people - 1), people + 1, 0], [vehicles] * 4]
        return values

    async def count(self, numbers: dict[str, tuple[int, int]]) -> float:
        """All partitions report the same instant; the first one has everything. Returns the instant."""
        at, values = self.tick(), self.values(numbers)
        sent_s = -math.inf

        async def served() -> bool:
            nonlocal sent_s
            if time.monotonic() > sent_s + 3:  # again: what is published before the API subscribes is lost
                for partition in range(self.settings.partitions):
                    await self.publish(partition, at, values if partition == 0 else np.zeros_like(values))
                sent_s = time.monotonic()
            return await self.serves(at)

        await until(served)
        return at

    async def seen(self, at: float) -> None:
        """Return when the API serves that instant or a later one."""
        await until(lambda: self.serves(at))

    async def serves(self, at: float) -> bool:
        """Whether the API serves that instant or a later one."""
        answer = await self.get("/v1/sites/ul/counts")
        return answer.status_code == 200 and moment(answer.json()["at"]) >= at - 0.001

    @asynccontextmanager
    async def keep_counting(self, numbers: dict[str, tuple[int, int]]) -> AsyncIterator[None]:
        """Report the same numbers ten times a second meanwhile."""

        async def report() -> None:
            while True:
                with suppress(nats.errors.Error, OSError):
                    at, values = self.tick(), self.values(numbers)
                    for partition in range(self.settings.partitions):
                        await self.publish(partition, at, values)
                await asyncio.sleep(0.1)  # the workers' interval

        task = asyncio.create_task(report())
        try:
            yield
        finally:
            task.cancel()


def moment(text: str) -> float:
    """Unix seconds of an RFC 3339 text."""
    return datetime.fromisoformat(text).timestamp()


async def status_is(api: Api, path: str, status: int) -> bool:
    """Whether a path answers so now."""
    try:
        return (await api.get(path)).status_code == status
    except httpx.TransportError:
        return False


@asynccontextmanager
async def open_api(
    folder: Path, *, zones: int = 3, with_stream: bool = True, **limits: Any
) -> AsyncIterator[Api]:
    """A broker, and the API on it, open to all; `limits` go into `ApiSettings`."""
    broker = Server(folder / "nats")
    client = Client()
    site = site_with(zones)
    settings = ApiSettings(
        site=site,
        core=Endpoint((("127.0.0.1", broker.port),), "", ""),
        data=folder / "data",
        partitions=PARTITIONS,
        web=folder / "web",
        secret=SECRET,
    )
    try:
        await broker.start()
        await client.connect(broker.url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=_quiet)  # type: ignore[arg-type]
        if with_stream:
            await make_count_stream(client)
            await make_access_streams(client)
        async with serving(replace(settings, **{**OPEN, **limits}), broker, client) as api:
            yield api
    finally:
        await client.close()
        await broker.kill()


@asynccontextmanager
async def serving(settings: ApiSettings, broker: Server | None, client: Client) -> AsyncIterator[Api]:
    """An API over a broker that runs."""
    stop, ports = asyncio.Event(), asyncio.Queue[int]()
    task = asyncio.create_task(run(settings, host="127.0.0.1", port=0, stop=stop, on_ready=ports.put_nowait))
    waiting = asyncio.create_task(ports.get())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if not waiting.done():
        waiting.cancel()
        await task
    base = f"http://127.0.0.1:{waiting.result()}"
    try:
        async with httpx.AsyncClient(base_url=base, timeout=60, trust_env=False) as http:
            yield Api(base, http, broker, client, settings.site, settings, stop, task)
    finally:
        stop.set()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()


async def make_count_stream(client: Client) -> None:
    """The stream that keeps each partition's newest counts."""
    log = client.jetstream()
    await log.add_stream(name=COUNT_STREAM, subjects=["count.*.*"], max_msgs_per_subject=1, allow_direct=True)


async def make_access_streams(client: Client) -> None:
    """The streams of tokens and sessions, of sites, of the audit log, and of the keys of pseudonyms in it."""
    for config in stream_configs(PARTITIONS, StreamSizes.within(1 << 30)):
        if config["name"] in ("KV_ACCESS", "KV_DAYKEY", "KV_SITE", AUDIT_STREAM):
            answer = await client.request(
                f"$JS.API.STREAM.CREATE.{config['name']}", msgspec.json.encode(config), timeout=60
            )
            assert b'"error"' not in answer.data, answer.data


async def _quiet(_: Exception) -> None:
    """The broker is killed on purpose."""


@dataclass(frozen=True)
class Sent:
    """An event of a stream, as a browser sees it."""

    event: str
    data: Any
    id: str | None


async def events(lines: AsyncIterator[str]) -> AsyncIterator[Sent]:
    """The events in the lines of a stream."""
    fields: dict[str, str] = {}
    async for line in lines:
        if line == "":
            if "data" in fields:
                yield Sent(fields.get("event", "message"), json.loads(fields["data"]), fields.get("id"))
            fields = {}
        else:
            name, _, value = line.partition(": ")
            fields[name] = value

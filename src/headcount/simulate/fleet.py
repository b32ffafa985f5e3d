"""MQTT connections of simulated devices: real clients, each with a last will and a buffer.

    Fleet.put(device, payload) ──▶ buffer of a FleetConnection ──▶ aiomqtt (MQTT 3.1.1) ──▶ broker

Devices share connections if there are more devices than connections. MQTT allows one last will per
connection: that of its first device.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiomqtt
import msgspec
import numpy as np

from headcount.counting.site import Site
from headcount.counting.site_file import parse_site
from headcount.errors import BrokerError
from headcount.messages.topics import FIX_TOPIC, SITE_TOPIC, STATUS_TOPIC, Kind
from headcount.runtime.retry import Backoff
from headcount.simulate import CONNECTIONS

log = logging.getLogger(__name__)

#: Maximum number of buffered messages per connection; then the oldest are dropped.
BUFFER = 10_000
#: Initial and maximum pause before a reconnect; the real pause is 50 to 100 % of it.
FIRST_RETRY_S, MAX_RETRY_S = 0.5, 15.0
#: Maximum number of connections that are opened concurrently.
MAX_OPENING = 50
#: Time to send buffered messages at the end.
FLUSH_TIMEOUT_S = 1.5
#: Timeout for the broker's responses, which detects broken connections.
RESPONSE_TIMEOUT_S = 4.0


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """The broker's address, and an account there."""

    host: str = "127.0.0.1"
    port: int = 1883
    tls: ssl.SSLContext | None = None
    #: The account of a device, which sends its own positions only; "" if none is needed.
    user: str = ""
    password: str = field(default="", repr=False)

    def client(self, name: str, will: aiomqtt.Will | None = None) -> aiomqtt.Client:
        """A client that is not connected yet; a random suffix makes its id unique."""
        return aiomqtt.Client(
            self.host,
            self.port,
            username=self.user or None,
            password=self.password or None,
            tls_context=self.tls,
            identifier=f"{self.user or name}-{secrets.token_hex(4)}",
            protocol=aiomqtt.ProtocolVersion.V311,
            will=will,
            timeout=RESPONSE_TIMEOUT_S,
            keepalive=60,
        )


@dataclass(slots=True)
class SendStats:
    """Numbers of messages and connections so far."""

    put: int = 0
    sent: int = 0
    dropped: int = 0  # because of a full buffer, or at the end
    broken: int = 0  # connections that ended unexpectedly or could not be opened
    connected: int = 0

    @property
    def waiting(self) -> int:
        """The number of buffered messages."""
        return self.put - self.sent - self.dropped


class FleetConnection:
    """One connection and its buffered messages."""

    def __init__(
        self, broker: BrokerAddress, status_topic: str, name: str, qos: int, sent: SendStats
    ) -> None:
        """Configure the connection, which opens with the first message."""
        self._broker, self._status_topic, self._name, self._qos = broker, status_topic, name, qos
        self._sent = sent
        self._buffer: deque[tuple[str, bytes]] = deque()
        self._wake = asyncio.Event()
        self._ending = False

    def put(self, topic: str, payload: bytes) -> None:
        """Add a message; drops the oldest if `BUFFER` are waiting."""
        self._sent.put += 1
        if len(self._buffer) >= BUFFER:
            self._buffer.popleft()
            self._sent.dropped += 1
        self._buffer.append((topic, payload))
        self._wake.set()

    def end(self) -> None:
        """Send the buffered messages, publish `offline`, and close the connection."""
        self._ending = True
        self._wake.set()

    async def run(self, opening: asyncio.Semaphore) -> None:
        """Keep the connection open until `end`, and reconnect when it breaks."""
        await self._wake.wait()
        pauses = Backoff(FIRST_RETRY_S, MAX_RETRY_S)
        while self._buffer or not self._ending:
            pauses.begin()
            will = aiomqtt.Will(self._status_topic, b"offline", qos=self._qos)
            try:
                async with self._open(self._broker.client(self._name, will), opening) as client:
                    pauses = Backoff(FIRST_RETRY_S, MAX_RETRY_S)
                    await self._send_all(client)
                    return
            except aiomqtt.MqttError as error:
                self._sent.broken += 1
                log.debug("%s: %s", self._name, error)
            share = 0.5 + secrets.randbelow(1000) / 2000
            await asyncio.sleep(pauses.pause_s() * share)

    @asynccontextmanager
    async def _open(
        self, client: aiomqtt.Client, opening: asyncio.Semaphore
    ) -> AsyncIterator[aiomqtt.Client]:
        async with opening:
            await client.__aenter__()
        self._sent.connected += 1
        try:
            yield client
        finally:
            self._sent.connected -= 1
            await client.__aexit__(None, None, None)

    async def _send_all(self, client: aiomqtt.Client) -> None:
        await client.publish(self._status_topic, b"online", qos=self._qos)
        while True:
            while self._buffer:
                await self._send(client, *self._buffer.popleft())
            if self._ending:
                await client.publish(self._status_topic, b"offline", qos=self._qos)
                return
            self._wake.clear()
            await self._wake.wait()

    async def _send(self, client: aiomqtt.Client, topic: str, payload: bytes) -> None:
        """Send one message; after a failure it is the first in the buffer again."""
        is_sent = False
        try:
            await client.publish(topic, payload, qos=self._qos)
            is_sent = True
        finally:
            if is_sent:
                self._sent.sent += 1
            else:
                self._buffer.appendleft((topic, payload))


class Fleet:
    """The devices of a site and their connections; open it with `open_fleet`."""

    def __init__(
        self,
        broker: BrokerAddress,
        site_id: str,
        devices: Sequence[tuple[Kind, str]],
        connections: int,
        qos: int,
    ) -> None:
        """Configure the connections, which are not opened yet."""
        self.sent = SendStats()
        self._topics = [FIX_TOPIC.format(site=site_id, kind=kind, device=name) for kind, name in devices]
        self.connections = [
            FleetConnection(
                broker, STATUS_TOPIC.format(site=site_id, kind=kind, device=name), name, qos, self.sent
            )
            for kind, name in devices[:connections]
        ]

    def put(self, device: int, payload: bytes) -> None:
        """Add a fix of a device (by index) to the buffer of its connection."""
        self.connections[device % len(self.connections)].put(self._topics[device], payload)


@asynccontextmanager
async def open_fleet(
    broker: BrokerAddress,
    site_id: str,
    devices: Sequence[tuple[Kind, str]],
    *,
    connections: int = CONNECTIONS,
    qos: int = 0,
) -> AsyncIterator[Fleet]:
    """Connect each device with its first message; at the end, send buffered messages for `FLUSH_TIMEOUT_S` at most.

    `Fleet.put` takes the index into `devices`, which are kind and id of each. Devices share connections if there are
    more of them.
    """
    fleet = Fleet(broker, site_id, devices, connections, qos)
    opening = asyncio.Semaphore(MAX_OPENING)
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(connection.run(opening), name=f"connection {i}")
            for i, connection in enumerate(fleet.connections)
        ]
        try:
            yield fleet
        finally:
            for connection in fleet.connections:
                connection.end()
            if running:
                _, late = await asyncio.wait(running, timeout=FLUSH_TIMEOUT_S)
                for task in late:
                    task.cancel()
            fleet.sent.dropped += fleet.sent.waiting


@dataclass(frozen=True, slots=True)
class SystemInfo:
    """The properties of a running system, from its retained site message."""

    site: Site
    speed: float  # simulated seconds per second; 1 except in a time-lapse


async def find_site(broker: BrokerAddress, site_id: str | None = None, timeout_s: float = 5.0) -> SystemInfo:
    """The site of the running system, from its retained message `headcount/+/site`; `site_id` chooses one of several.

    Raises:
        BrokerError: the broker does not answer within `timeout_s`, or publishes no site or several.
        SiteError: the published site is not valid.
    """
    where = f"MQTT broker {broker.host}:{broker.port}"
    try:
        async with broker.client("headcount-site") as client:
            found = await _retained_sites(client, site_id, timeout_s)
    except aiomqtt.MqttError as error:
        raise BrokerError(
            f"{where}: cannot connect ({error}). Start the system with `headcount up`, "
            "or choose another broker with --host and --port."
        ) from error
    if not found:
        wanted = f"site {site_id}" if site_id else "site"
        raise BrokerError(
            f"{where}: publishes no {wanted} on {SITE_TOPIC.format(site='+')}. Is it headcount?"
        )
    if len(found) > 1:
        ids = ", ".join(sorted(topic.split("/")[1] for topic in found))
        raise BrokerError(f"{where}: publishes the sites {ids}. Choose one with --site.")
    topic, geojson = next(iter(found.items()))
    return SystemInfo(parse_site(geojson, f"{where}, topic {topic}"), _speed(geojson))


async def _retained_sites(client: aiomqtt.Client, site_id: str | None, timeout_s: float) -> dict[str, object]:
    """Topic → GeoJSON of all sites; waits a third of a second for more after the first."""
    found: dict[str, object] = {}
    await client.subscribe(SITE_TOPIC.format(site=site_id or "+"), qos=1)
    try:
        async with asyncio.timeout(timeout_s) as limit:
            async for message in client.messages:
                if not found:
                    limit.reschedule(asyncio.get_running_loop().time() + 0.3)
                try:
                    found[str(message.topic)] = msgspec.json.decode(bytes(message.payload))
                except (msgspec.MsgspecError, ValueError, RecursionError):
                    found[str(message.topic)] = None  # parse_site raises the error
    except TimeoutError:
        return found
    return found


def _speed(geojson: object) -> float:
    """The property `speed` of the site feature, 1 if there is none."""
    features = geojson["features"] if isinstance(geojson, dict) else []
    speeds = [f["properties"].get("speed") for f in features if f["properties"].get("role") == "site"]
    return (
        float(speeds[0]) if speeds and isinstance(speeds[0], int | float) and np.isfinite(speeds[0]) else 1.0
    )

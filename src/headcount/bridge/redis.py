"""Redis streams as a source: a consumer group, whose entries are acknowledged when the log has them.

One bridge reads at a time, so the order of a stream's entries holds. A new reader first claims all entries that
were delivered and not acknowledged, in their order.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
from redis import asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from headcount.bridge.bus_topics import record_topic, topic_pattern
from headcount.bridge.source import BATCH_SIZE, Reconnecting, SourceMessage, SourceOptions
from headcount.errors import SettingsError

_log = logging.getLogger(__name__)

#: Time that a read waits for a first entry, and so the longest reaction to a stop.
POLL_S = 0.5
TIMEOUT_S = 5.0
#: Entries that are pending between two batches were delivered to a connection that is lost. They are claimed at the
#: start, and this often: the server may still answer a request that an earlier connection sent.
CLAIM_INTERVAL_S = 10.0
#: The consumer of all bridges of a name: one of them reads.
_CONSUMER = "bridge"
#: Fields that name the device or topic; the others of an entry without `payload` are those of a fix.
_NAMES = (b"topic", b"device")

Entry = tuple[bytes, dict[bytes, bytes] | None]


def source(options: SourceOptions) -> RedisSource:
    """The server of a URL.

    Raises:
        SettingsError: no stream is named, or the URL is not valid.
    """
    return RedisSource(options)


class RedisSource:
    """Streams of one Redis server, with a group of the bridge's name."""

    exclusive = True

    def __init__(self, options: SourceOptions) -> None:
        """Connect to the server of these options when `batches` is called.

        Raises:
            SettingsError: no stream is named, or the URL is not valid.
        """
        self._options = options
        self._pattern = topic_pattern(options.url.query)
        self._streams = options.topics
        self._database = options.url.path.strip("/") or "0"
        if not self._streams:
            raise SettingsError("bridge.topics", "is not set; use the names of the Redis streams to copy")
        if not self._database.isdecimal():
            raise SettingsError("bridge.from", "is not valid; use redis://HOST:6379 or redis://HOST:6379/0")
        self._client: aioredis.Redis | None = None
        self._unacknowledged: dict[str, list[bytes]] = {}
        self.problem = "not connected yet"

    async def batches(self, stop: asyncio.Event) -> AsyncGenerator[list[SourceMessage], None]:
        """Yield entries until `stop` is set; see `Source`."""
        pauses = Reconnecting()
        while not stop.is_set():
            pauses.begin()
            self._unacknowledged = {}
            try:
                async with self._new_client() as self._client:
                    await self._create_groups(self._client)
                    self.problem = ""
                    _log.info("connected to %s", self._options.address)
                    claim_s = 0.0
                    while not stop.is_set():
                        if time.monotonic() >= claim_s:
                            for stream in self._streams:
                                async for entries in self._claimed(self._client, stream):
                                    yield self._messages(stream, entries)
                            claim_s = time.monotonic() + CLAIM_INTERVAL_S
                        for stream, entries in await self._new(self._client):
                            yield self._messages(stream, entries)
            except (RedisError, OSError) as error:
                self.problem = f"{self._options.address}: {error}"
                _log.warning("%s; connecting again", self.problem)
            finally:
                self._client = None
            await pauses.pause(stop)

    async def acknowledge(self) -> None:
        """Acknowledge what was yielded; see `Source`."""
        try:
            for stream in [*self._unacknowledged]:
                if self._client is not None:
                    await self._client.xack(stream, self._options.name, *self._unacknowledged[stream])
                del self._unacknowledged[stream]
        except (RedisError, OSError) as error:  # with the next ones, or after the next claim
            _log.warning("%s: cannot acknowledge: %s", self._options.address, error)

    def _new_client(self) -> aioredis.Redis:
        options, files = self._options, self._options.settings
        return aioredis.Redis(
            host=options.url.hostname or "localhost",
            port=options.url.port or 6379,
            db=int(self._database),
            username=options.user or None,
            password=options.password or None,
            ssl=options.tls is not None,
            ssl_ca_certs=_path(files.ca),
            ssl_certfile=_path(files.cert),
            ssl_keyfile=_path(files.key),
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),  # the source reconnects, and then claims first
            client_name="headcount",
            protocol=2,
        )

    async def _create_groups(self, client: aioredis.Redis) -> None:
        """Create the groups that are missing: at the start, and after a loss of data."""
        for stream in self._streams:
            try:
                await client.xgroup_create(stream, self._options.name, id="0", mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    async def _claimed(self, client: aioredis.Redis, stream: str) -> AsyncGenerator[list[Entry], None]:
        """Entries that were delivered and not acknowledged."""
        start: Any = "0-0"
        while True:
            answer: Any = await client.xautoclaim(
                stream, self._options.name, _CONSUMER, min_idle_time=0, start_id=start, count=BATCH_SIZE
            )
            start, entries = answer[:2]
            if entries:
                yield entries
            if start == b"0-0":
                return

    async def _new(self, client: aioredis.Redis) -> list[tuple[str, list[Entry]]]:
        """The next entries of each stream; [] where there are none now."""
        answer: Any = await client.xreadgroup(
            self._options.name,
            _CONSUMER,
            dict.fromkeys(self._streams, ">"),
            count=BATCH_SIZE,
            block=int(POLL_S * 1000),
        )
        return [(stream.decode(), entries) for stream, entries in answer]

    def _messages(self, stream: str, entries: list[Entry]) -> list[SourceMessage]:
        self._unacknowledged.setdefault(stream, []).extend(id_ for id_, _ in entries)
        return [self._message(stream, fields) for _, fields in entries]

    def _message(self, stream: str, fields: dict[bytes, bytes] | None) -> SourceMessage:
        if fields is None:  # deleted before it was read, with Redis 6
            return SourceMessage("", b"", "empty")
        topic = record_topic(self._pattern, fields.get(b"topic"), fields.get(b"device"), stream)
        payload = fields.get(b"payload")
        return SourceMessage(topic, fix_object(fields) if payload is None else payload)


def _path(file: Path | None) -> str | None:
    return None if file is None else str(file)


def fix_object(fields: dict[bytes, bytes]) -> bytes:
    """The JSON object of an entry whose fields are those of a fix: numbers, where they can be read as such."""
    return msgspec.json.encode(
        {name.decode(errors="replace"): _value(value) for name, value in fields.items() if name not in _NAMES}
    )


def _value(value: bytes) -> object:
    try:
        return msgspec.json.decode(value, type=float)
    except msgspec.DecodeError:
        return value.decode(errors="replace")

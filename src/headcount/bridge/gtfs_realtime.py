"""Vehicle positions of GTFS-Realtime as a source: a feed that is requested regularly.

Each position is a `car-iotp` message with the vehicle's id of the feed. A feed holds a vehicle's position until there is a newer one,
so only those with a new time are copied.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator

import httpx2
import msgspec
import numpy as np
from google.protobuf.message import DecodeError
from google.transit import gtfs_realtime_pb2 as gtfs

from headcount.bridge.source import BATCH_SIZE, SourceMessage, SourceOptions
from headcount.errors import SettingsError
from headcount.runtime.tasks import StopRequestedError, unless_stopped, wait_any

_log = logging.getLogger(__name__)

#: Pause between requests where the feed has no `Cache-Control: max-age`, and the limits of one that it has.
INTERVAL_S, MIN_INTERVAL_S, MAX_INTERVAL_S = 15.0, 5.0, 120.0
TIMEOUT_S = 20.0
#: Larger feeds are not read: a city's 2000 vehicles take some 300 kB.
MAX_FEED_BYTES = 8 << 20
TOPIC = "car-iotp"
_MAX_AGE = re.compile(r"\bmax-age=(\d{1,6})\b")


class FeedError(Exception):
    """The feed cannot be read now; the text is the reason. Never leaves this module."""


def source(options: SourceOptions) -> GtfsRealtimeSource:
    """The feed of a URL.

    Raises:
        SettingsError: the URL is not valid.
    """
    return GtfsRealtimeSource(options)


class GtfsRealtimeSource:
    """One feed; `bridge.topics` are the ids of the vehicles to copy, by default all."""

    exclusive = True

    def __init__(self, options: SourceOptions) -> None:
        """Request the feed of these options when `batches` is called.

        Raises:
            SettingsError: the URL is not valid.
        """
        self._options = options
        scheme, host = options.url.scheme.removeprefix("gtfs-rt+"), options.url.netloc.rpartition("@")[2]
        try:
            self._url = httpx2.URL(options.url._replace(scheme=scheme, netloc=host).geturl())
        except httpx2.InvalidURL as error:
            raise SettingsError("bridge.from", f"is not a valid URL: {error}") from error
        self._interval_s = INTERVAL_S
        self._validators: dict[str, str] = {}
        self._times: dict[str, float] = {}  # of the vehicles in the last feed
        self.problem = "not connected yet"

    async def batches(self, stop: asyncio.Event) -> AsyncGenerator[list[SourceMessage], None]:
        """Yield positions until `stop` is set; see `Source`."""
        self._validators, self._times = {}, {}
        async with self._new_client() as client:
            while not stop.is_set():
                messages: list[SourceMessage] = []
                try:
                    async with asyncio.timeout(TIMEOUT_S):
                        feed = await unless_stopped(self._request(client), stop)
                    messages = self._messages(feed) if feed else []
                    self._note("")
                except StopRequestedError:
                    return
                except (FeedError, httpx2.HTTPError, TimeoutError) as error:
                    self._note(f"{self._options.address}: {str(error) or repr(error)}")
                for start in range(0, len(messages), BATCH_SIZE):
                    yield messages[start : start + BATCH_SIZE]
                await wait_any(stop, timeout_s=self._interval_s)

    async def acknowledge(self) -> None:
        """Nothing to do: a feed is not changed by its readers."""

    def _new_client(self) -> httpx2.AsyncClient:
        options = self._options
        return httpx2.AsyncClient(
            auth=(options.user, options.password) if options.user else None,
            headers={"x-api-key": options.password} if options.password and not options.user else None,
            verify=options.tls() if options.tls else True,
            timeout=TIMEOUT_S,
            trust_env=False,
        )

    async def _request(self, client: httpx2.AsyncClient) -> gtfs.FeedMessage | None:
        """The feed; None where it has not changed.

        Raises:
            FeedError, httpx2.HTTPError: it can't be read now.
        """
        body = bytearray()
        async with client.stream("GET", self._url, headers=self._validators) as answer:
            self._interval_s = self._pause_s(answer)
            if answer.status_code == httpx2.codes.NOT_MODIFIED:
                return None
            if answer.status_code != httpx2.codes.OK:
                raise FeedError(f"the feed answers with status {answer.status_code}")
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > MAX_FEED_BYTES:
                    raise FeedError(f"the feed has more than {MAX_FEED_BYTES >> 20} MiB")
        try:
            feed = gtfs.FeedMessage()
            feed.ParseFromString(bytes(body))
        except DecodeError as error:
            raise FeedError("the answer is not a feed of GTFS-Realtime") from error
        headers = {"If-None-Match": "etag", "If-Modified-Since": "last-modified"}
        self._validators = {
            ours: answer.headers[theirs] for ours, theirs in headers.items() if theirs in answer.headers
        }
        return feed

    def _pause_s(self, answer: httpx2.Response) -> float:
        """The time until the next request, as the server wants it."""
        retry, age = (
            answer.headers.get("retry-after", ""),
            _MAX_AGE.search(answer.headers.get("cache-control", "")),
        )
        wanted = retry if retry.isdecimal() else age[1] if age else ""
        return min(max(float(wanted), MIN_INTERVAL_S), MAX_INTERVAL_S) if wanted else INTERVAL_S

    def _messages(self, feed: gtfs.FeedMessage) -> list[SourceMessage]:
        """A message for each position that is newer than in the last feed."""
        before, self._times = self._times, {}
        messages = []
        for entity in feed.entity:
            vehicle, name = entity.vehicle, entity.vehicle.vehicle.id
            t_s = float(vehicle.timestamp or feed.header.timestamp)
            if entity.is_deleted or not name or not vehicle.HasField("position") or not t_s:
                continue
            if self._options.topics and name not in self._options.topics:
                continue
            self._times[name] = t_s
            if t_s > before.get(name, 0.0):
                messages.append(SourceMessage(TOPIC, encode_position(name, t_s, vehicle.position)))
        return messages

    def _note(self, problem: str) -> None:
        if problem != self.problem:
            _log.info("%s", problem or f"connected to {self._options.address}")
        self.problem = problem


def encode_position(name: str, t_s: float, position: gtfs.Position) -> bytes:
    """A `car-iotp` message."""
    fields: dict[str, str | float] = {
        "id": name,
        "t": t_s,
        "lat": _decimal(position.latitude),
        "lon": _decimal(position.longitude),
    }
    if position.HasField("speed"):
        fields["vel"] = _decimal(position.speed * 3.6)  # m/s → km/h
    if position.HasField("bearing"):
        fields["cog"] = _decimal(position.bearing)
    return msgspec.json.encode(fields)


def _decimal(value: float) -> float:
    """The shortest decimal number of a value, which feeds hold in single precision."""
    return float(str(np.float32(value)))

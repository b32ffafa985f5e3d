"""The live stream: server-sent events, and the same over a WebSocket.

A reader has no queue. When its time has come and it has taken what it was sent before, it gets the
difference between what it knows and the newest snapshot; what lies between is never sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Literal

import msgspec
import numpy as np
from fastapi import APIRouter, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import Response, StreamingResponse
from starlette.requests import HTTPConnection
from starlette.types import Message, Receive, Scope, Send

from headcount.api.count_views import Counts, age_s, feed_for, update
from headcount.api.live_counts import CountsFeed, CountsSnapshot
from headcount.api.middleware.authorization import signed_in
from headcount.api.parameters import Every, SiteId, Zones
from headcount.api.schemas import problems
from headcount.api.schemas.examples import STREAM_TEXT, failures
from headcount.api.schemas.problems import ProblemError, invalid
from headcount.api.state import ApiState, State, known_site
from headcount.messages.times import iso

#: When a client should connect again.
RETRY_MS = 2000

router = APIRouter(prefix="/v1", tags=["live"])


class Ping(msgspec.Struct):
    """A sign of life."""

    at: str | None
    age_s: float | None


class Update(msgspec.Struct):
    """A message of a stream."""

    event: Literal["counts", "ping"]
    data: Counts | Ping


class Reader:
    """What one reader knows, and what it gets next."""

    def __init__(
        self, state: ApiState, connection: HTTPConnection, zones: str | None, every_s: float
    ) -> None:
        """Read these zones (ids with commas between), at most every `every_s`, as whoever has connected.

        Raises:
            ProblemError: `invalid-parameter`, naming the zone that there isn't.
        """
        self._live = feed_for(state, signed_in(connection).caller)
        self._ping_s = state.settings.ping_s
        self._zones = zone_indices(self._live, zones)
        self._every_s = every_s
        self._known: CountsSnapshot | None = None
        self._ping_due = _now() + self._ping_s
        self._counts_due = 0.0

    async def updates(self) -> AsyncIterator[Update]:
        """Updates until the live counts are closed; whoever takes them late gets fewer."""
        live = self._live
        while not live.closed.is_set():
            if (news := self._news()) is not None:
                yield news
            elif (now := _now()) >= self._ping_due:
                self._ping_due = now + self._ping_s
                yield self._ping()
            elif now < self._counts_due:
                await live.pause(min(self._counts_due, self._ping_due) - now)
            else:
                await live.newer(self._known.number if self._known else 0, self._ping_due - now)

    def _news(self) -> Update | None:
        """What changed since the last time, if it is time for it."""
        snapshot = self._live.snapshot
        now = _now()
        if snapshot is None or snapshot is self._known or now < self._counts_due:
            return None
        known, self._known = self._known, snapshot
        changed = self._changed(known, snapshot)
        if known and not changed and known.total.partitions_fresh == snapshot.total.partitions_fresh:
            return None
        # Readers of the same rhythm go together, so that they share what is made for a snapshot.
        self._counts_due = (now // self._every_s + 1) * self._every_s
        site = self._live.site.id
        return Update("counts", update(site, snapshot, time.time(), changed, full=known is None))

    def _changed(self, known: CountsSnapshot | None, snapshot: CountsSnapshot) -> list[int]:
        if known is None:
            return self._zones
        differs = np.any(known.total.values != snapshot.total.values, axis=(1, 2))
        return [zone for zone in self._zones if differs[zone]]

    def _ping(self) -> Update:
        snapshot = self._live.snapshot
        if snapshot is None:
            return Update("ping", Ping(None, None))
        return Update("ping", Ping(iso(snapshot.total.at), age_s(snapshot.total.at, time.time())))


def _now() -> float:
    return asyncio.get_running_loop().time()


class Events(StreamingResponse):
    """Server-sent events of one reader, who has a place among the streams meanwhile."""

    media_type = "text/event-stream"

    def __init__(self, state: ApiState, reader: Reader) -> None:
        """Send what a reader gets; a proxy between must not gather it."""
        super().__init__(_text(reader), headers={"x-accel-buffering": "no"})
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the client leaves, or has taken nothing for too long."""

        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._state.settings.send_timeout_s):
                await send(message)

        with seat(self._state), contextlib.suppress(TimeoutError):
            await super().__call__(scope, receive, send_in_time)


@contextlib.contextmanager
def seat(state: ApiState) -> Iterator[None]:
    """A place among the streams that may be open at once.

    Raises:
        ProblemError: `too-many-streams`.
    """
    limit = state.settings.max_streams
    if state.open_streams >= limit:
        detail = f"{limit} live streams are open. Try again later, or poll /counts."
        raise ProblemError(problems.TOO_MANY_STREAMS, detail, headers={"retry-after": "10"})
    state.open_streams += 1
    try:
        yield
    finally:
        state.open_streams -= 1


def zone_indices(live: CountsFeed, zones: str | None) -> list[int]:
    """The indices of a list of zone ids with commas between; of all zones without one.

    Raises:
        ProblemError: `invalid-parameter`, naming the zone that there isn't.
    """
    if zones is None:
        return list(range(len(live.zones)))
    unknown = [zone for zone in zones.split(",") if zone not in live.index]
    if unknown:
        raise invalid("zones", f"there is no zone {unknown[0][:64]!r} in site {live.site.id}")
    return sorted({live.index[zone] for zone in zones.split(",")})


async def _text(reader: Reader) -> AsyncIterator[bytes]:
    yield f"retry: {RETRY_MS}\n\n".encode()
    async for news in reader.updates():
        number = f"id: {news.data.at}\n" if news.event == "counts" else ""
        yield f"event: {news.event}\n{number}data: ".encode() + msgspec.json.encode(news.data) + b"\n\n"


@router.get(
    "/sites/{site}/stream",
    summary="Live counts as server-sent events",
    response_class=Events,
    status_code=200,  # FastAPI looks for it in the class otherwise
    responses={
        200: {
            "description": "`event: counts` with absolute numbers: all zones first, then those that changed. "
            "`event: ping` every 5 s. A slow reader gets fewer and newer updates.",
            "content": {"text/event-stream": {"schema": {"type": "string"}, "example": STREAM_TEXT}},
        },
        **failures("unknown-site", "invalid-parameter", "too-many-streams"),
    },
)
async def stream(
    site: SiteId,
    request: Request,
    state: State,
    every: Every = 1.0,
    zones: Zones = None,
) -> Response:
    """Follow the counts: an update whenever numbers change, but not more often than `every`.

    The first event has all zones (`full: true`), later ones only the zones that changed. Numbers
    are absolute, so a lost update does no harm; after reconnecting, the first event is full again.

    Without the scope `counts:exact`, where small counts are hidden: numbers are as in /counts, and
    change once a minute.
    """
    known_site(state, site)
    return Events(state, Reader(state, request, zones, every))


@router.get(
    "/sites/{site}/ws",
    summary="Live counts over a WebSocket",
    responses={
        101: {"description": 'Messages are JSON: `{"event":"counts"|"ping","data":…}` as in /stream.'},
        **failures("unknown-site", "upgrade-required"),
    },
    status_code=101,
    response_class=Response,
)
async def not_a_websocket(site: SiteId, state: State) -> Response:
    """Connect here with a WebSocket (`ws://`): the same updates and parameters as /stream."""
    known_site(state, site)
    detail = "This address speaks WebSocket. Over HTTP, the same updates are at /stream."
    raise ProblemError(problems.UPGRADE, detail, headers={"upgrade": "websocket"})


@router.websocket("/sites/{site}/ws")
async def websocket(
    socket: WebSocket,
    site: str,
    state: State,
    every: Every = 1.0,
    zones: Zones = None,
) -> None:
    """Send the updates of /stream over a WebSocket."""
    try:
        known_site(state, site)
        reader = Reader(state, socket, zones, every)
        with seat(state):
            await socket.accept()
            await _send_until_gone(socket, reader, state.settings.send_timeout_s)
    except ProblemError as error:
        problem = problems.document(error.kind, error.detail, socket.url.path)
        await socket.send_denial_response(problems.response(problem, error.headers))


async def _send_until_gone(socket: WebSocket, reader: Reader, timeout_s: float) -> None:
    async with asyncio.TaskGroup() as group:
        sender = group.create_task(_send(socket, reader, timeout_s), name="websocket")
        # What clients say is not listened to, but that they leave is.
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass
        sender.cancel()


async def _send(socket: WebSocket, reader: Reader, timeout_s: float) -> None:
    with contextlib.suppress(WebSocketDisconnect, TimeoutError, RuntimeError):  # gone while sending
        async for news in reader.updates():
            async with asyncio.timeout(timeout_s):
                await socket.send_text(msgspec.json.encode(news).decode())
    with contextlib.suppress(RuntimeError):
        await socket.close(1001)

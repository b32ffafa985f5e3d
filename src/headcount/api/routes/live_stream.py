"""The live stream: server-sent events, and the same over a WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
from fastapi import APIRouter, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from headcount.api.middleware.identity import Identity, identity_of
from headcount.api.middleware.site_access import SiteInPath
from headcount.api.parameters import Every, Zones
from headcount.api.schemas import problems
from headcount.api.schemas.problems import ProblemError
from headcount.api.state import ApiState, State, known_site
from headcount.api.stream_reader import StreamReader

#: The delay before a client reconnects.
RETRY_MS = 2000

router = APIRouter(prefix="/v1", tags=["live"])


class EventStream(StreamingResponse):
    """Server-sent events for one reader."""

    media_type = "text/event-stream"

    def __init__(self, state: ApiState, identity: Identity, reader: StreamReader) -> None:
        """Send a reader's updates; proxies must not buffer them."""
        super().__init__(_events(reader), headers={"x-accel-buffering": "no"})
        self._state = state
        self._identity = identity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the client disconnects, or takes nothing for `send_timeout_s`."""

        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._state.settings.send_timeout_s):
                await send(message)

        with _slot(self._state, self._identity), contextlib.suppress(TimeoutError):
            await super().__call__(scope, receive, send_in_time)


def _slot(state: ApiState, identity: Identity) -> contextlib.AbstractContextManager[None]:
    return state.streams.occupied(identity.by, identity.key, identity.caller.subject)


async def _events(reader: StreamReader) -> AsyncIterator[bytes]:
    yield f"retry: {RETRY_MS}\n\n".encode()
    async for update in reader.updates():
        id_ = f"id: {update.data.at}\n" if update.event == "counts" else ""
        yield f"event: {update.event}\n{id_}data: ".encode() + msgspec.json.encode(update.data) + b"\n\n"


@router.get(
    "/sites/{site}/stream",
    summary="Stream live counts as server-sent events",
    response_class=EventStream,
    status_code=200,  # FastAPI looks for it in the class otherwise
    response_description="`event: counts` with absolute counts: all zones first, then those that changed. "
    "`event: ping` every 5 s. A slow reader gets fewer and newer updates.",
    openapi_extra={"x-problems": ["too-many-streams"]},
)
async def stream_counts(
    site: SiteInPath, request: Request, state: State, every: Every = 1.0, zones: Zones = None
) -> Response:
    """Send an update whenever counts change, but not more often than `every`.

    The first event has all zones (`full: true`), later ones only the zones that changed. Counts
    are absolute, so a lost update does no harm; after a reconnect, the first event is full again.

    Without the scope `counts:exact`, where small counts are hidden: counts are as in /counts, and
    change once a minute.
    """
    return EventStream(state, identity_of(request), StreamReader(state, site, request, zones, every))


@router.get(
    "/sites/{site}/ws",
    summary="Stream live counts over a WebSocket",
    response_description='Messages are JSON: `{"event":"counts"|"ping","data":…}` as in /stream.',
    openapi_extra={"x-problems": ["upgrade-required"]},
    status_code=101,
    response_class=Response,
)
async def require_websocket(site: SiteInPath) -> Response:  # noqa: ARG001  # checked
    """Connect here with a WebSocket (`ws://`): the same updates and parameters as /stream."""
    detail = "This address is for WebSockets. Over HTTP, the same updates are at /stream."
    raise ProblemError(problems.UPGRADE, detail, headers={"upgrade": "websocket"})


@router.websocket("/sites/{site}/ws")
async def stream_counts_over_websocket(
    socket: WebSocket, site: str, state: State, every: Every = 1.0, zones: Zones = None
) -> None:
    """Send the updates of /stream over a WebSocket."""
    try:
        served = known_site(state, identity_of(socket).caller, site)
        reader = StreamReader(state, served, socket, zones, every)
        with _slot(state, identity_of(socket)):
            await socket.accept()
            await _send_until_disconnect(socket, reader, state.settings.send_timeout_s)
    except ProblemError as error:
        problem = problems.document(error.kind, error.detail, socket.url.path)
        await socket.send_denial_response(problems.response(problem, error.headers))


async def _send_until_disconnect(socket: WebSocket, reader: StreamReader, timeout_s: float) -> None:
    async with asyncio.TaskGroup() as group:
        sender = group.create_task(_send(socket, reader, timeout_s), name="websocket")
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass  # messages of clients are ignored
        sender.cancel()


async def _send(socket: WebSocket, reader: StreamReader, timeout_s: float) -> None:
    with contextlib.suppress(WebSocketDisconnect, TimeoutError, RuntimeError):  # gone while sending
        async for update in reader.updates():
            async with asyncio.timeout(timeout_s):
                await socket.send_text(msgspec.json.encode(update).decode())
    with contextlib.suppress(RuntimeError):
        await socket.close(1001)

"""The live stream over real connections: server-sent events and WebSocket."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from api_fixture import Api, Sent, events, open_api
from headcount.api.schemas.counts import StreamCounts, StreamPing
from headcount.messages.times import iso
from waiting import BUSY_S, until


@asynccontextmanager
async def open_stream(api: Api, query: str = "every=0.1") -> AsyncIterator[AsyncIterator[Sent]]:
    """The events of a stream."""
    async with api.http.stream("GET", f"/v1/sites/ul/stream?{query}") as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield events(answer.aiter_lines())


async def next_counts(stream_events: AsyncIterator[Sent]) -> Any:
    """The data of the next `counts` event."""
    async with asyncio.timeout(120):
        async for sent in stream_events:
            if sent.event == "counts":
                StreamCounts.model_validate(sent.data)
                assert sent.id == sent.data["at"]
                return sent.data
    raise AssertionError("the stream ended")


def numbers(data: Any) -> dict[str, tuple[int, int]]:
    """People and vehicles by zone."""
    return {z["zone"]: (z["person"]["count"], z["vehicle"]["count"]) for z in data["zones"]}


async def test_first_everything_then_what_changed(tmp_path: Path) -> None:
    """The first event has all zones, later ones only changed zones with absolute numbers."""
    async with open_api(tmp_path) as api:
        await api.count({"site": (5, 1), "library": (2, 0)})
        async with open_stream(api) as sent:
            first = await next_counts(sent)
            assert first["full"]
            assert numbers(first) == {"site": (5, 1), "library": (2, 0), "z1": (0, 0), "z2": (0, 0)}
            await api.count({"site": (5, 1), "library": (2, 0)})
            at = await api.count({"site": (5, 1), "library": (3, 0), "z2": (0, 7)})
            second = await next_counts(sent)
            assert not second["full"]
            assert second["at"] == iso(at)
            assert numbers(second) == {"library": (3, 0), "z2": (0, 7)}


async def test_filtered_stream(tmp_path: Path) -> None:
    """With `zones`, only these zones are in the events, and other zones' changes send nothing."""
    async with open_api(tmp_path) as api:
        await api.count({"site": (5, 1)})
        async with open_stream(api, "every=0.1&zones=z1,library") as sent:
            assert set(numbers(await next_counts(sent))) == {"library", "z1"}
            await api.count({"site": (6, 1)})
            await api.count({"site": (7, 1), "z1": (1, 0)})
            assert numbers(await next_counts(sent)) == {"z1": (1, 0)}


async def test_updates_keep_their_distance(tmp_path: Path) -> None:
    """With `every=0.5`, numbers that change ten times a second make at most two updates a second."""
    async with open_api(tmp_path) as api, open_stream(api, "every=0.5") as sent:
        start, updates, people = time.monotonic(), 0, 0
        changing = asyncio.create_task(count_up(api, 20))
        while people < 20:
            people, _ = numbers(await next_counts(sent))["site"]
            updates += 1
        await changing
        assert updates <= (time.monotonic() - start) / 0.5 + 2


async def count_up(api: Api, last: int) -> None:
    """Change the number of people on site ten times a second, from 1 to `last`."""
    for n in range(1, last + 1):
        at, values = api.tick(), api.values({"site": (n, 0)})
        await api.publish(0, at, values)
        await api.publish(1, at, 0 * values)
        await asyncio.sleep(0.1)  # the interval of the changes


async def test_pings_without_counts(tmp_path: Path) -> None:
    """A stream gives signs of life before there are counts, and afterwards they carry the counts' age."""
    async with open_api(tmp_path, ping_s=0.2) as api, open_stream(api) as sent:
        ping = await anext(sent)
        assert (ping.event, ping.data) == ("ping", {"at": None, "age_s": None})
        at = await api.count({"site": (5, 1)})
        await next_counts(sent)
        while (later := await anext(sent)).event != "ping":
            pass
        assert StreamPing.model_validate(later.data).at == iso(at)


async def test_freshness_is_reported(tmp_path: Path) -> None:
    """Overdue partitions are reported by an event without zones."""
    async with open_api(tmp_path) as api:
        async with api.keep_counting({"site": (5, 1)}), open_stream(api) as sent:
            assert (await next_counts(sent))["full"]
        async with open_stream(api) as sent:
            told = await next_counts(sent)
            while told["partitions_fresh"] > 0:
                told = await next_counts(sent)
                assert told["zones"] == []


async def test_stuck_reader_is_given_up(tmp_path: Path) -> None:
    """A reader that takes nothing for too long loses its place, and doesn't hold up the end."""
    async with open_api(tmp_path, zones=2000, max_streams=1, send_timeout_s=0.5) as api:
        with socket.socket() as stuck:
            await open_and_not_read(stuck, api)
            n = 0

            async def has_a_place_again() -> bool:
                nonlocal n
                n += 1
                at, values = api.tick(), api.values({})
                values[:] = n
                await api.publish(0, at, values)
                await api.publish(1, at, values)
                async with api.http.stream("GET", "/v1/sites/ul/stream") as answer:
                    return answer.status_code == 200

            await until(has_a_place_again)
            start = time.monotonic()
            api.stop.set()
            await api.serving
            assert time.monotonic() - start < BUSY_S


async def test_slow_reader_gets_the_newest(tmp_path: Path) -> None:
    """A slow reader gets the newest counts, not all between."""
    async with open_api(tmp_path, zones=2000) as api:
        await api.count({"site": (5, 1)})
        with socket.socket() as slow:
            await open_and_not_read(slow, api)
            published = 0
            for _ in range(100):
                published += 1
                at, values = api.tick(), api.values({})
                values[:] = 1000 + published
                await api.publish(0, at, values)
                await api.publish(1, at, 0 * values)
                await asyncio.sleep(0.05)  # time in which the server could send each one
            await api.seen(at)
            received = await read_until(slow, b'"count":1100,')
        updates = received.count(b"event: counts")
        assert 2 <= updates < published / 2
        assert len(received) < 100 * 200_000 / 2


async def open_and_not_read(slow: socket.socket, api: Api) -> None:
    """Ask for a stream and read nothing."""
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(slow, ("127.0.0.1", int(api.base.rpartition(":")[2])))
    question = b"GET /v1/sites/ul/stream?every=0.1 HTTP/1.0\r\nHost: localhost\r\n\r\n"
    await loop.sock_sendall(slow, question)


async def read_until(slow: socket.socket, mark: bytes) -> bytes:
    """Everything from a connection until a mark is seen."""
    loop, received = asyncio.get_running_loop(), bytearray()
    async with asyncio.timeout(120):
        while mark not in received[-500_000:]:
            chunk = await loop.sock_recv(slow, 1 << 20)
            assert chunk, "the server ended the stream"
            received += chunk
    return bytes(received)


async def test_limit_of_streams(tmp_path: Path) -> None:
    """Beyond the limit a stream is refused with 503, and a place is free again when a reader leaves."""
    async with open_api(tmp_path, max_streams=2) as api:
        await api.count({"site": (5, 1)})
        async with open_stream(api) as one, open_stream(api) as two:
            await next_counts(one)
            await next_counts(two)
            refused = await api.get("/v1/sites/ul/stream")
            assert refused.status_code == 503
            assert refused.json()["type"] == "/problems/too-many-streams"
            assert refused.headers["retry-after"] == "10"

        async def is_free() -> bool:
            async with api.http.stream("GET", "/v1/sites/ul/stream") as answer:
                return answer.status_code == 200

        await until(is_free)


@asynccontextmanager
async def streams(api: Api, count: int, headers: dict[str, str]) -> AsyncIterator[list[int]]:
    """Open streams of one caller, and the statuses of their answers."""
    async with AsyncExitStack() as opened:
        sent = [api.http.stream("GET", "/v1/sites/ul/stream", headers=headers) for _ in range(count)]
        yield [(await opened.enter_async_context(each)).status_code for each in sent]


async def test_no_caller_takes_all_streams(tmp_path: Path) -> None:
    """One address or token gets a quarter of the streams; some stay free for callers with a login."""
    async with open_api(tmp_path, max_streams=20, open=False) as api:
        _, text = await api.services.token_store.add("test", "viewer")
        token = {"authorization": f"Bearer {text}"}
        addresses = [{"x-forwarded-for": f"192.0.2.{n}"} for n in range(5)]
        async with AsyncExitStack() as opened:
            for address, expected in zip(
                addresses, [*[[200] * 5 + [503]] * 3, [200] + [503] * 5], strict=False
            ):
                assert await opened.enter_async_context(streams(api, 6, address)) == expected
            refused = await api.get("/v1/sites/ul/stream", headers=addresses[4])
            assert refused.json()["type"] == "/problems/too-many-streams"
            assert "without a login" in refused.json()["detail"]
            assert await opened.enter_async_context(streams(api, 5, token)) == [200] * 4 + [503]


async def test_stopping_ends_streams(tmp_path: Path) -> None:
    """With open streams the server stops within a second, and readers see an end, not a reset."""
    async with open_api(tmp_path) as api:
        await api.count({"site": (5, 1)})
        async with open_stream(api) as one, open_stream(api, "every=60") as two:
            await next_counts(one)
            await next_counts(two)
            start = time.monotonic()
            api.stop.set()
            rest = [sent async for sent in one] + [sent async for sent in two]
            await api.serving
            assert time.monotonic() - start < BUSY_S
            assert len(rest) < 3
        with pytest.raises(httpx.ConnectError):
            await api.get("/healthz")


async def test_cancelling_stops_as_well(tmp_path: Path) -> None:
    """Cancelled instead of stopped, the server ends its streams and then itself."""
    async with open_api(tmp_path) as api:
        await api.count({"site": (5, 1)})
        async with open_stream(api) as sent:
            await next_counts(sent)
            api.serving.cancel()
            assert len([each async for each in sent]) < 3
            await asyncio.wait({api.serving})
            assert api.serving.cancelled()


async def test_websocket_has_the_same_updates(tmp_path: Path) -> None:
    """Over WebSocket come the same updates as JSON, and unknown sites and too many readers are refused."""
    needed = "uvicorn needs the package websockets for WebSocket"
    connect = pytest.importorskip("websockets.asyncio.client", reason=needed).connect
    refused: type[Exception] = pytest.importorskip("websockets.exceptions").InvalidStatus
    closed: type[Exception] = pytest.importorskip("websockets.exceptions").ConnectionClosed
    async with open_api(tmp_path, max_streams=1) as api:
        await api.count({"site": (5, 1)})
        address = api.base.replace("http:", "ws:") + "/v1/sites/ul/ws?every=0.1"
        async with connect(address, proxy=None) as socket_:
            first = json.loads(await socket_.recv())
            assert first["event"] == "counts"
            assert StreamCounts.model_validate(first["data"]).full
            with pytest.raises(refused) as full:
                await connect(address, proxy=None)
            assert response_of(full.value).status_code == 503
            assert response_of(full.value).headers["content-type"] == "application/problem+json"
            await socket_.send("ignored")
            await api.count({"site": (6, 1)})
            assert numbers(json.loads(await socket_.recv())["data"]) == {"site": (6, 1)}
        with pytest.raises(refused) as unknown:
            await connect(address.replace("/ul/", "/moon/"), proxy=None)
        assert response_of(unknown.value).status_code == 404

        async def is_free() -> bool:
            try:
                last.append(await connect(address, proxy=None))
            except refused:
                return False
            return True

        last: list[Any] = []
        await until(is_free)
        api.stop.set()
        with pytest.raises(closed):
            await receive_forever(last[0])


def response_of(error: Any) -> Any:
    """The HTTP answer that refused a WebSocket."""
    return error.response


async def receive_forever(socket_: Any) -> None:
    """Receive until the other side closes."""
    while True:
        await socket_.recv()


async def test_ordinary_request_to_the_websocket(tmp_path: Path) -> None:
    """A GET without upgrade is 426."""
    async with open_api(tmp_path) as api:
        answer = await api.get("/v1/sites/ul/ws")
        assert (answer.status_code, answer.json()["type"]) == (426, "/problems/upgrade-required")

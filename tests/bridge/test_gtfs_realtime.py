"""A feed of vehicle positions, served by the standard library's HTTP server, as the bridge reads it."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bridge.feed_server import FeedServer
from bridge.reading import new_source, read
from headcount.bridge import gtfs_realtime
from headcount.tls.certificates import ensure_server_certificate
from waiting import until

KEY = "an-api-key-for-tests-only"


@contextmanager
def serving(tls: Path | None = None) -> Iterator[tuple[FeedServer, str]]:
    """A server with its URL, over TLS with a certificate in the folder `tls`."""
    server = FeedServer()
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*ensure_server_certificate(tls, ["127.0.0.1"]))
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        scheme = "gtfs-rt+https" if tls else "gtfs-rt+http"
        yield server, f"{scheme}://127.0.0.1:{server.server_port}/vehiclepositions.pb"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def short_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests follow each other quickly."""
    monkeypatch.setattr(gtfs_realtime, "INTERVAL_S", 0.1)


async def test_positions(tmp_path: Path) -> None:
    """Each vehicle with a position is a `car-iotp` message; speeds are converted; the key is sent over TLS."""
    with serving(tmp_path) as (server, url):
        server.serve_positions(
            {"id": "shuttle 1", "t": 1_795_900_010, "lat": 52.67, "lon": -8.57, "speed": 10.0},
            {"id": "shuttle 2", "lat": 52.68, "lon": -8.58},
            {"id": "shuttle 3"},
        )
        (tmp_path / "key").write_text(KEY)
        source = new_source(url, ca=tmp_path / "server.crt", password_file=tmp_path / "key")
        messages = await read(source, 2)
    assert {message.topic for message in messages} == {"car-iotp"}
    assert [json.loads(message.payload) for message in messages] == [
        {"id": "shuttle 1", "t": 1_795_900_010, "lat": 52.67, "lon": -8.57, "vel": 36.0, "cog": 90.0},
        {"id": "shuttle 2", "t": 1_795_900_000, "lat": 52.68, "lon": -8.58},
    ]
    assert server.requests[0]["x-api-key"] == KEY


async def test_new_positions_only() -> None:
    """A position is copied once, and an unchanged feed is not transferred again."""
    first, second = ({"id": name, "t": 1_795_900_010, "lat": 52.67, "lon": -8.57} for name in ("a", "b"))
    with serving() as (server, url):
        server.serve_positions(first, second)
        reading = asyncio.create_task(read(new_source(url), 3))
        await until(lambda: 304 in server.answers, "an unchanged feed")
        server.serve_positions(first, second | {"t": 1_795_900_020})
        messages = await reading
    assert [json.loads(message.payload)["id"] for message in messages] == ["a", "b", "b"]


async def test_chosen_vehicles() -> None:
    """Only the vehicles in `topics` are copied."""
    with serving() as (server, url):
        server.serve_positions(*({"id": name, "lat": 52.67, "lon": -8.57} for name in ("a", "b", "c")))
        messages = await read(new_source(url, topics="b,c"), 2)
    assert [json.loads(message.payload)["id"] for message in messages] == ["b", "c"]


async def test_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused request, another document and a feed that is too large are problems, and later feeds are read."""
    monkeypatch.setattr(gtfs_realtime, "MAX_FEED_BYTES", 1 << 20)
    monkeypatch.setattr(gtfs_realtime, "MIN_INTERVAL_S", 0.1)
    with serving() as (server, url):
        server.status = 503
        source = new_source(f"{url}?api_key={KEY}")
        reading = asyncio.create_task(read(source, 1))
        await until(lambda: "status 503" in source.problem, "the refused request")
        server.status, server.body = 200, b"<html>"
        await until(lambda: "not a feed of GTFS-Realtime" in source.problem, "another document")
        server.body = bytes(2 << 20)
        await until(lambda: "more than 1 MiB" in source.problem, "too large")
        assert KEY not in source.problem
        server.serve_positions({"id": "a", "lat": 52.67, "lon": -8.57})
        (message,) = await reading
    assert not source.problem
    assert json.loads(message.payload)["id"] == "a"


async def test_stop_during_a_request() -> None:
    """A server that does not answer does not delay a stop."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        source = new_source(f"gtfs-rt+http://127.0.0.1:{server.getsockname()[1]}/feed")
        stop = asyncio.Event()
        reading = asyncio.ensure_future(anext(source.batches(stop), None))
        connection, _ = await asyncio.to_thread(server.accept)
        with connection:
            stop.set()
            async with asyncio.timeout(gtfs_realtime.TIMEOUT_S / 2):
                assert await reading is None

"""The public WebSocket port: MQTT only, and without accounts only for listed pages."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from pathlib import Path

import pytest

from attack.mqtt_packets import connect, text
from headcount.broker.core import Broker
from headcount.broker.nats_config import SYSTEM
from headcount.messages.topics import INTERNAL
from nats_fixture import PASSWORD, open_broker

LOOPBACK = "127.0.0.1"
OURS, LISTED, FOREIGN = "http://localhost:8080", "https://page.example", "https://evil.example"


class WebSocket:
    """A WebSocket of a page, or without an origin of another program."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Use `opened`."""
        self.reader, self._writer = reader, writer

    @classmethod
    async def opened(cls, broker: Broker, path: str, origin: str = "") -> WebSocket | None:
        """The WebSocket; None: the server refuses it."""
        reader, writer = await asyncio.open_connection(LOOPBACK, broker.config.ws_port)
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {LOOPBACK}:{broker.config.ws_port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
            *(["Sec-WebSocket-Protocol: mqtt"] if path == "/mqtt" else []),
            *([f"Origin: {origin}"] if origin else []),
        ]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        if answer.startswith(b"HTTP/1.1 101 "):
            return cls(reader, writer)
        assert answer.startswith(b"HTTP/1.1 403 "), answer
        writer.close()
        return None

    def send(self, data: bytes) -> None:
        """Send a binary frame, masked as clients must."""
        assert len(data) < 126 or len(data) < 1 << 16
        size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
        self._writer.write(b"\x82" + size + bytes(4) + data)

    async def receive_all(self) -> bytes:
        """Everything that the server sends before it closes the connection."""
        try:
            return await self.reader.read()
        finally:
            self.close()

    def close(self) -> None:
        """End the connection."""
        self._writer.close()


async def accepts_mqtt(broker: Broker, origin: str) -> bool:
    """Whether an MQTT client without an account is admitted from a page."""
    socket = await WebSocket.opened(broker, "/mqtt", origin)
    if socket is None:
        return False
    socket.send(connect(secrets.token_hex(8).encode()))
    assert await socket.reader.readexactly(6) == b"\x82\x04\x20\x02\x00\x00"
    socket.close()
    return True


async def test_pages_of_other_origins(tmp_path: Path) -> None:
    """Where no account is needed, only listed pages connect; programs, which send no origin, do too."""
    async with open_broker(tmp_path, origins=(OURS, LISTED)) as broker:
        assert [await accepts_mqtt(broker, origin) for origin in ("", OURS, LISTED)] == [True] * 3
        others = (FOREIGN, "http://localhost:9999", "http://page.example", "https://page.example:8443")
        assert [await accepts_mqtt(broker, origin) for origin in others] == [False] * 4


async def test_no_page_by_default(tmp_path: Path) -> None:
    """Without a list, libraries that send the port's own origin connect, and no page does."""
    async with open_broker(tmp_path) as broker:
        own = f"http://{LOOPBACK}:{broker.config.ws_port}"
        assert [await accepts_mqtt(broker, origin) for origin in ("", own)] == [True] * 2
        assert [await accepts_mqtt(broker, origin) for origin in (OURS, FOREIGN)] == [False] * 2


@pytest.mark.parametrize("anonymous", [True, False])
async def test_no_nats_over_websocket(tmp_path: Path, anonymous: bool) -> None:
    """No user can use NATS over the WebSocket port, not even with our own password."""
    async with open_broker(tmp_path, anonymous=anonymous) as broker:
        logins = [{"user": user, "pass": PASSWORD} for user in (INTERNAL, SYSTEM, "device")]
        for login in ({}, *logins):
            socket = await WebSocket.opened(broker, "/")
            assert socket is not None
            socket.send(f"CONNECT {json.dumps(login | {'verbose': False})}\r\nPING\r\n".encode())
            answer = await socket.receive_all()
            assert b"PONG" not in answer
            assert b"Authorization Violation" in answer or b"Authentication Timeout" in answer, answer


async def test_our_own_login_is_for_inside_ports(tmp_path: Path) -> None:
    """Our own user cannot log in over MQTT on the WebSocket port either."""
    async with open_broker(tmp_path, anonymous=False) as broker:
        socket = await WebSocket.opened(broker, "/mqtt")
        assert socket is not None
        login = text(INTERNAL.encode()) + text(PASSWORD.encode())
        socket.send(connect(b"headcount-x", flags=0xC2, rest=login))
        assert b"\x20\x02\x00\x00" not in await socket.receive_all()

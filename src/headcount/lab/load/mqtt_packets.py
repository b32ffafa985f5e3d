"""The MQTT 3.1.1 packets of a device that only publishes. Pure.

Source: the OASIS standard, chapters 2 and 3. A client library for thousands of connections would use the CPU
that is to be measured.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

CONNACK, PUBACK, PINGRESP = 2, 4, 13
PINGREQ, DISCONNECT = b"\xc0\x00", b"\xe0\x00"
_CLEAN, _WILL = 0x02, 0x04


@dataclass(frozen=True, slots=True)
class LastWill:
    """The message that the broker publishes when a device disconnects unexpectedly."""

    topic: str
    payload: bytes


def connect(client_id: str, keepalive_s: int, will: LastWill | None = None) -> bytes:
    """A CONNECT with a clean session and no password."""
    flags = _CLEAN | (_WILL if will else 0)
    body = b"\x00\x04MQTT\x04" + struct.pack(">BH", flags, keepalive_s) + _text(client_id.encode())
    if will:
        body += _text(will.topic.encode()) + _text(will.payload)
    return b"\x10" + _size(len(body)) + body


def publish(topic: bytes, payload: bytes, number: int = 0, *, duplicate: bool = False) -> bytes:
    """A PUBLISH of QoS 1, or of QoS 0 without a number; `duplicate` marks one that was sent before."""
    length = 2 + len(topic) + len(payload)
    if not number:
        return b"\x30" + _size(length) + struct.pack(">H", len(topic)) + topic + payload
    head = b"\x3a" if duplicate else b"\x32"
    return (
        head + _size(length + 2) + struct.pack(">H", len(topic)) + topic + struct.pack(">H", number) + payload
    )


def _text(value: bytes) -> bytes:
    return struct.pack(">H", len(value)) + value


def _size(length: int) -> bytes:
    out = bytearray()
    while True:
        length, low = divmod(length, 128)
        out.append(low | (128 if length else 0))
        if not length:
            return bytes(out)


@dataclass(slots=True)
class PacketReader:
    """Bytes of a broker → packets, for any fragmentation."""

    _rest: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Type and body of each complete packet."""
        self._rest += data
        while len(self._rest) >= 2:
            length, used = self._length()
            if used == 0 or len(self._rest) < 1 + used + length:
                return
            body = bytes(self._rest[1 + used : 1 + used + length])
            kind = self._rest[0] >> 4
            del self._rest[: 1 + used + length]
            yield kind, body

    def _length(self) -> tuple[int, int]:
        """The remaining length and its number of bytes; (0, 0) if incomplete."""
        length = 0
        for used in range(1, 5):
            if used >= len(self._rest):
                return 0, 0
            length |= (self._rest[used] & 127) << (7 * (used - 1))
            if self._rest[used] < 128:
                return length, used
        raise ValueError("a packet's length has more than four bytes")

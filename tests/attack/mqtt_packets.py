"""MQTT as an attacker writes it: proper sessions with something broken, from a seed."""

from __future__ import annotations

import random
import struct


def text(value: bytes) -> bytes:
    """A string or binary field with its length."""
    return struct.pack(">H", len(value) & 0xFFFF) + value


def length(number: int) -> bytes:
    """A packet's remaining length: 7 bits a byte, the lowest first."""
    digits = b""
    while True:
        number, digit = divmod(number, 128)
        digits += bytes([digit | (128 if number else 0)])
        if not number:
            return digits


def packet(head: int, body: bytes) -> bytes:
    """A packet of this first byte."""
    return bytes([head]) + length(len(body)) + body


def connect(client: bytes, *, level: int = 4, flags: int = 2, rest: bytes = b"") -> bytes:
    """CONNECT, a clean session by default."""
    return packet(0x10, text(b"MQTT") + bytes([level, flags]) + b"\x00\x3c" + text(client) + rest)


def publish(topic: bytes, payload: bytes, qos: int = 0, number: int = 1) -> bytes:
    """PUBLISH."""
    return packet(0x30 | qos << 1, text(topic) + (struct.pack(">H", number) if qos else b"") + payload)


def subscribe(topic: bytes, qos: int = 1) -> bytes:
    """SUBSCRIBE."""
    return packet(0x82, b"\x00\x07" + text(topic) + bytes([qos]))


TOPICS = (
    b"headcount/ul/person/x/fix",
    b"headcount/ul/person/x/status",
    b"headcount/ul/counts/#",
    b"headcount/+/+/+/fix",
    b"headcount/ul/person/x/cmd",
    b"car-iotp",
    b"owntracks/a/b",
    b"$SYS/#",
    b"$JS/API/STREAM/LIST",
    b"$MQTT/msgs/fix",
    b"fix/0/forget",
    b"fix/0/tick",
    b"#",
    b"",
    b"/",
    b"//////",
    b"a/" * 2000,
    b"\x00",
    b"\xff\xfe",
    b"a b",
    b"headcount.ul.person.x.fix",
    b"headcount/ul/person/*/fix",
    b"headcount/ul/person/>/fix",
)
PAYLOADS = (b"", b"{}", b'{"tst":1,"lat":1,"lon":2}', b"\x00" * 100, b"[" * 5000, b"\xff" * 70_000)
CLIENTS = (b"", b"x", b"a" * 300, b"\x00", b"\xff", b"with space", b"a.b", b"*", b">", b"$x")


def session(choose: random.Random) -> bytes:
    """The bytes of one connection: CONNECT, some packets, and in most of them a violation."""
    will = text(choose.choice(TOPICS)) + text(choose.choice(PAYLOADS)[:65_535])
    flags, rest = choose.choice(
        ((2, b""), (0, b""), (6, will), (0x26, will), (0xC2, text(b"u") + text(b"p")))
    )
    flags = choose.choice((flags, flags, flags, choose.randrange(256)))
    data = connect(choose.choice(CLIENTS), level=choose.choice((4, 4, 4, 3, 5, 0)), flags=flags, rest=rest)
    for _ in range(choose.randrange(6)):
        topic, payload = choose.choice(TOPICS), choose.choice(PAYLOADS)
        data += choose.choice(
            (
                publish(topic, payload, choose.randrange(3)),
                publish(topic, payload, 3),
                subscribe(topic, choose.randrange(4)),
                packet(0xA2, b"\x00\x08" + text(topic)),
                packet(0xC0, b""),
                packet(0x62, b"\x00\x01"),
                packet(0x40, b"\x00\x09"),
                packet(choose.randrange(256), payload[:40]),
                connect(b"again"),
                b"\x30\xff\xff\xff\xff\xff",
                b"\x30\xff\xff\xff\x7f",
            )
        )
    return broken(choose, data)


def broken(choose: random.Random, data: bytes) -> bytes:
    """Some bytes changed or an end cut off, mostly."""
    changed = bytearray(data)
    for _ in range(choose.choice((0, 0, 1, 3, 10))):
        changed[choose.randrange(min(len(changed), 200))] = choose.randrange(256)
    if choose.random() < 0.2:
        del changed[choose.randrange(len(changed)) :]
    return bytes(changed)

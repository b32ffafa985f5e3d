"""The NATS protocol parser against messages written out by the protocol's own text."""

from __future__ import annotations

import contextlib
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headcount.errors import ProtocolError
from headcount.messaging.parser import ProtocolParser, ServerMessages

TOKEN = st.text("abcXYZ019._-$", min_size=1, max_size=20).map(str.encode)
PAYLOAD = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([b"", b"\r\n", b"a\r\nb", b"MSG a 1 b 3\r\nxyz", b"PING\r\n", b'{"tst":1}']),
    st.sampled_from(
        [
            b"NATS/1.0\r\nNmqtt-Pub:0\r\n\r\n",
            b"NATS/1.0\r\nNmqtt-Pub:1\r\n\r\nabc",
            b"x\r\nNATS/1.0\r\nNmqtt-Pub:1\r\n\r\n",
            b"x\r\nHMSG a 1 b 25 28\r\nNATS/1.0\r\nNmqtt-Pub:1\r\n\r\nabc\r\nMSG ",
        ]
    ),
)
MESSAGE = st.tuples(TOKEN, st.integers(1, 30), st.none() | TOKEN, PAYLOAD)
OTHER = st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b'INFO {"a":1}\r\n'])
MQTT = [b"NATS/1.0\r\nNmqtt-Pub:%d\r\n\r\n" % qos for qos in range(3)]
HEADS = st.sampled_from([b"NATS/1.0\r\nA: b\r\n\r\n", *MQTT])
HEADED = st.tuples(TOKEN, st.integers(1, 30), TOKEN, PAYLOAD, HEADS)


def _plain(message: tuple[bytes, int, bytes | None, bytes]) -> bytes:
    subject, sid, reply, payload = message
    words = [b"MSG", subject, str(sid).encode(), *([reply] if reply else []), str(len(payload)).encode()]
    return b" ".join(words) + b"\r\n" + payload + b"\r\n"


def _with_headers(message: tuple[bytes, int, bytes, bytes, bytes]) -> bytes:
    subject, sid, reply, payload, head = message
    line = b"HMSG %s %d %s %d %d" % (subject, sid, reply, len(head), len(head) + len(payload))
    return line + b"\r\n" + head + payload + b"\r\n"


@given(
    st.lists(st.one_of(MESSAGE, HEADED, OTHER), max_size=30),
    st.lists(st.integers(0, 2000), max_size=20),
)
@example([(b"a", 1, None, MQTT[0]), (b"b", 1, None, b"")], [])
def test_any_cut_of_the_stream_gives_the_same_messages(
    items: list[tuple[bytes, int, bytes | None, bytes] | tuple[bytes, int, bytes, bytes, bytes] | bytes],
    cuts: list[int],
) -> None:
    """However the bytes arrive, every message comes out once, whole and in order."""
    data, expected, pings = b"", [], 0
    for item in items:
        if isinstance(item, bytes):
            data += item
            pings += item == b"PING\r\n"
            continue
        data += _plain(item) if len(item) == 4 else _with_headers(item)
        qos = b"%d" % MQTT.index(item[4]) if len(item) == 5 and item[4] in MQTT else b""
        expected.append((item[0], str(item[1]).encode(), item[2] or b"", item[3], qos))
    parser, found, heard = ProtocolParser(), [], 0
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    for start, stop in pairwise(edges):
        batch = parser.feed(data[start:stop])
        found += list(zip(batch.subjects, batch.sids, batch.replies, batch.payloads, batch.qos, strict=True))
        heard += batch.pings
    assert found == expected
    assert heard == pings


def test_an_empty_message_with_headers_is_a_message() -> None:
    """An empty payload that has headers, as MQTT's QoS 1 gives it, is a message and no status."""
    head = b"NATS/1.0\r\nNmqtt-Pub: 1\r\n\r\n"
    batch = ProtocolParser().feed(
        b"HMSG fix.0.s.person.a 4 reply %d %d\r\n%s\r\n" % (len(head), len(head), head)
    )
    assert (batch.subjects, batch.replies, batch.payloads) == ([b"fix.0.s.person.a"], [b"reply"], [b""])
    assert not batch.statuses


def test_a_status_announces_missing_messages() -> None:
    """The end of a pull request names its code and how many messages of it are left out."""
    head = b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 37\r\nNats-Pending-Bytes: 0\r\n\r\n"
    batch = ProtocolParser().feed(b"HMSG inbox.4 4 %d %d\r\n%s\r\n" % (len(head), len(head), head))
    assert [(s.sid, s.code, s.pending) for s in batch.statuses] == [(b"4", 408, 37)]
    assert len(batch) == 0


@given(st.binary(max_size=300))
def test_hostile_bytes_are_refused_or_waited_for(data: bytes) -> None:
    """Whatever comes, the parser gives a batch or a ProtocolError, and nothing else."""
    with contextlib.suppress(ProtocolError):
        assert isinstance(ProtocolParser().feed(data), ServerMessages)


@pytest.mark.parametrize(
    "line",
    [
        b"-ERR 'Authorization Violation'\r\n",
        b"MSG a\r\n",
        b"MSG a 1 -5\r\n\r\n",
        b"MSG a 1 2\r\nabc\r\n",
        b"HMSG a 1 9 2\r\nab\r\n",
        b"WHAT\r\n",
        b"x" * 70_000,
    ],
)
def test_what_is_not_the_protocol_is_an_error(line: bytes) -> None:
    """Lines that no server sends end the connection with an error that shows them."""
    with pytest.raises(ProtocolError):
        ProtocolParser().feed(line)

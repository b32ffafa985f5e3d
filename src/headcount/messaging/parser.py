"""Parse bytes from a NATS server into messages; pure.

A message is `MSG <subject> <sid> [reply] <size>` CRLF payload CRLF, or
`HMSG <subject> <sid> [reply] <size of headers> <size>` CRLF headers payload CRLF. Nearly everything
that a consumer delivers has either no headers or, from MQTT, the same 25 bytes of them. Those are
turned into a word of the line before; then a chunk is split on CRLF as a whole: lines and payloads
alternate if no payload holds a CRLF. The sizes verify that: the first is a line; if its size equals the
length of the next part, that is the whole payload and a line follows again, and so on. (A payload that
contains the same headers has a CRLF, so the next part is too short.) On any mismatch the chunk is parsed
step by step, and so is its last message, which may be incomplete.

Protocol: https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field

from headcount.errors import ProtocolError

CRLF = b"\r\n"
#: No line and no payload is longer; otherwise the parser is out of step with the server.
MAX_LINE = 65_536
MAX_PAYLOAD = 64 * 1024 * 1024
#: The headers of a message that came over MQTT with this quality of service.
_MQTT_HEAD = b"NATS/1.0\r\nNmqtt-Pub:%d\r\n\r\n"
_MQTT_BYTES = len(_MQTT_HEAD % 0)
#: The word that replaces them and can't be a size; none for a message without headers.
_QOS = {b"qos0": b"0", b"qos1": b"1", b"": b""}
#: Bytes at the end of a chunk in which its last message is searched.
_TAIL = 16_384


@dataclass(slots=True)
class ServerStatus:
    """A message without payload about a pull request: its end, or a heartbeat."""

    sid: bytes
    code: int
    pending: int  # messages of the request that will not be delivered


@dataclass(slots=True)
class ServerMessages:
    """Messages and statuses of a chunk of bytes; the five lists have one entry per message."""

    sids: list[bytes] = field(default_factory=list)
    subjects: list[bytes] = field(default_factory=list)
    replies: list[bytes] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    qos: list[bytes] = field(default_factory=list)  # of MQTT: b"0", b"1", b"2"; b"": not over MQTT
    statuses: list[ServerStatus] = field(default_factory=list)
    pings: int = 0

    def __len__(self) -> int:
        return len(self.sids)


class ProtocolParser:
    """Splits a server's bytes into messages, and keeps an incomplete one."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> ServerMessages:
        """The messages that are complete now.

        Raises:
            ProtocolError: if the bytes violate the protocol, or the server reports `-ERR`.
        """
        data = self._rest + chunk if self._rest else chunk
        start = max(0, len(data) - _TAIL)
        last = max(data.rfind(b"\r\nHMSG ", start), data.rfind(b"\r\nMSG ", start)) + len(CRLF)
        batch = _fast(data[:last]) if last > 1 else None
        return self._careful(data, ServerMessages()) if batch is None else self._careful(data[last:], batch)

    def _careful(self, data: bytes, batch: ServerMessages) -> ServerMessages:
        start = 0
        while (end := data.find(CRLF, start)) >= 0:
            tokens = data[start:end].split(b" ")
            verb = tokens[0].upper()
            if verb in {b"MSG", b"HMSG"}:
                after = self._message(data, end + 2, tokens, batch)
                if after is None:
                    break
                start = after
                continue
            start = end + 2
            if verb == b"PING":
                batch.pings += 1
            elif verb == b"-ERR":
                raise ProtocolError("the server reports an error", data[end - len(data[start:end]) : end])
            elif verb not in {b"PONG", b"+OK", b"INFO"}:
                raise ProtocolError("unknown line", b" ".join(tokens))
        self._rest = data[start:]
        if start == 0 and len(self._rest) > MAX_LINE and CRLF not in self._rest[:MAX_LINE]:
            raise ProtocolError(f"a line of more than {MAX_LINE} bytes", self._rest)
        return batch

    def _message(self, data: bytes, body: int, tokens: list[bytes], batch: ServerMessages) -> int | None:
        """Read one message whose payload starts at `body`; the start of the next line, None if incomplete."""
        headed = tokens[0].upper() == b"HMSG"
        expected = 5 if headed else 4
        try:
            size = int(tokens[-1])
            head = int(tokens[-2]) if headed else 0
        except (ValueError, IndexError):
            raise ProtocolError("a message without a size", b" ".join(tokens)) from None
        if not expected <= len(tokens) <= expected + 1 or not 0 <= head <= size <= MAX_PAYLOAD:
            raise ProtocolError("an invalid message line", b" ".join(tokens))
        if len(data) < body + size + 2:
            return None
        if data[body + size : body + size + 2] != CRLF:
            raise ProtocolError("a payload without CRLF at its end", data[body : body + size])
        sid = tokens[2]
        # an empty payload alone doesn't make a status: with MQTT's QoS 1 a fix has headers too
        status = _status(sid, data[body : body + head]) if headed and size == head else None
        if status is not None and status.code:
            batch.statuses.append(status)
        else:
            batch.sids.append(sid)
            batch.subjects.append(tokens[1])
            batch.replies.append(tokens[3] if len(tokens) == expected + 1 else b"")
            batch.payloads.append(data[body + head : body + size])
            batch.qos.append(_qos(data[body : body + head]))
        return body + size + 2


def _fast(data: bytes) -> ServerMessages | None:
    """Parse complete messages as a whole; None if some may be of an unusual form."""
    for qos in range(2):
        data = data.replace(CRLF + _MQTT_HEAD % qos, b" qos%d\r\n" % qos)
    lines = data.split(CRLF)
    if len(lines) % 2 == 0:
        return None
    heads, payloads = lines[0:-1:2], lines[1::2]
    tokens = b" ".join(heads).split(b" ")
    if len(tokens) == 5 * len(heads) and tokens[0::5].count(b"MSG") == len(heads):
        qos_of = [b""] * len(heads)
        return _verified(
            ServerMessages(tokens[2::5], tokens[1::5], tokens[3::5], payloads, qos_of), tokens[4::5]
        )
    if tokens[0::7].count(b"HMSG") != len(heads):
        heads = [head if head.startswith(b"HMSG ") else _as_headed(head) for head in heads]
        tokens = b" ".join(heads).split(b" ")
    heading = tokens[4::7]
    if len(tokens) != 7 * len(heads) or tokens[0::7].count(b"HMSG") != len(heads):
        return None
    if heading.count(b"%d" % _MQTT_BYTES) + heading.count(b"0") != len(heads):
        return None
    try:
        qos_of = [_QOS[word] for word in tokens[6::7]]
    except KeyError:
        return None
    return _verified(
        ServerMessages(tokens[2::7], tokens[1::7], tokens[3::7], payloads, qos_of), tokens[5::7], heading
    )


def _verified(
    batch: ServerMessages, sizes: list[bytes], heading: list[bytes] | None = None
) -> ServerMessages | None:
    """The batch if the lengths of its payloads match the lines; `heading` are the sizes of the headers."""
    try:
        wanted = map(int, sizes)
        if heading is not None:
            wanted = map(operator.sub, wanted, map(int, heading))
        return batch if list(wanted) == list(map(len, batch.payloads)) else None
    except ValueError:
        return None


def _as_headed(line: bytes) -> bytes:
    """`MSG a 1 reply 5` as a line of a message with headers of no length; anything else as it is."""
    words = line.split(b" ")
    if len(words) != 5 or words[0] != b"MSG":
        return line
    return b"H" + b" ".join(words[:4]) + b" 0 " + words[4] + b" "


def _qos(head: bytes) -> bytes:
    """MQTT's quality of service in the headers."""
    _, found, value = head.partition(b"\r\nNmqtt-Pub:")
    return value.strip()[:1] if found else b""


def _status(sid: bytes, head: bytes) -> ServerStatus:
    """`NATS/1.0 408 Request Timeout` and its headers."""
    lines = head.split(CRLF)
    words = lines[0].split(b" ")
    code = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    pending = 0
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"nats-pending-messages" and value.strip().isdigit():
            pending = int(value)
    return ServerStatus(sid, code, pending)

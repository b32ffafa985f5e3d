"""Bytes from a NATS server → batches of messages, without I/O.

A message is `MSG <subject> <sid> [reply] <size>` CRLF payload CRLF, or `HMSG` with headers before
the payload. In the stream that a consumer delivers nearly everything is the same kind of `MSG`, so
a chunk is split on CRLF in one go: headers and payloads alternate if no payload holds a CRLF. That
is verified by the sizes: the first line is a header; if its size equals the length of the next
line, that line is the whole payload and the line after it is a header again, and so on. On any
mismatch the chunk is parsed step by step.

Protocol: https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

from __future__ import annotations

from dataclasses import dataclass, field

from headcount.errors import ProtocolError

CRLF = b"\r\n"
#: No line and no payload that we ask for is longer; more means that we have lost the thread.
MAX_LINE = 65_536
MAX_PAYLOAD = 64 * 1024 * 1024


@dataclass(slots=True)
class Status:
    """A message without payload that tells of a pull request: its end, or a heartbeat."""

    sid: bytes
    code: int
    pending: int  # how many messages of the request will not come any more


@dataclass(slots=True)
class Batch:
    """What a chunk of bytes held; the four lists have one entry a message."""

    sids: list[bytes] = field(default_factory=list)
    subjects: list[bytes] = field(default_factory=list)
    replies: list[bytes] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    statuses: list[Status] = field(default_factory=list)
    pings: int = 0

    def __len__(self) -> int:
        """How many messages there are."""
        return len(self.sids)


class Parser:
    """Cuts what a server sends into messages; keeps what isn't whole yet."""

    def __init__(self) -> None:
        """A parser at the start of a connection, after INFO."""
        self._rest = b""

    def feed(self, chunk: bytes) -> Batch:
        """The messages that are whole now.

        Raises:
            ProtocolError: if the bytes aren't the protocol, or the server says `-ERR`.
        """
        data = self._rest + chunk if self._rest else chunk
        batch = self._fast(data)
        return self._careful(data) if batch is None else batch

    def _fast(self, data: bytes) -> Batch | None:
        lines = data.split(CRLF)
        rest = lines.pop()
        if len(lines) % 2:
            rest = lines.pop() + CRLF + rest
        if not lines:
            return None
        headers, payloads = lines[0::2], lines[1::2]
        tokens = b" ".join(headers).split(b" ")
        if len(tokens) != 5 * len(headers) or tokens[0::5].count(b"MSG") != len(headers):
            return None
        try:
            if list(map(int, tokens[4::5])) != list(map(len, payloads)):
                return None
        except ValueError:
            return None
        self._rest = rest
        return Batch(tokens[2::5], tokens[1::5], tokens[3::5], payloads)

    def _careful(self, data: bytes) -> Batch:
        batch = Batch()
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
                raise ProtocolError("the server refused something", data[end - len(data[start:end]) : end])
            elif verb not in {b"PONG", b"+OK", b"INFO"}:
                raise ProtocolError("unknown line", b" ".join(tokens))
        self._rest = data[start:]
        if start == 0 and len(self._rest) > MAX_LINE and CRLF not in self._rest[:MAX_LINE]:
            raise ProtocolError(f"a line of more than {MAX_LINE} bytes", self._rest)
        return batch

    def _message(self, data: bytes, body: int, tokens: list[bytes], batch: Batch) -> int | None:
        """Read one message whose payload starts at `body`; where the next line starts, None if not whole."""
        headed = tokens[0].upper() == b"HMSG"
        expected = 5 if headed else 4
        try:
            size = int(tokens[-1])
            head = int(tokens[-2]) if headed else 0
        except (ValueError, IndexError):
            raise ProtocolError("a message without a size", b" ".join(tokens)) from None
        if not expected <= len(tokens) <= expected + 1 or not 0 <= head <= size <= MAX_PAYLOAD:
            raise ProtocolError("a message line that makes no sense", b" ".join(tokens))
        if len(data) < body + size + 2:
            return None
        if data[body + size : body + size + 2] != CRLF:
            raise ProtocolError("a payload that doesn't end where it should", data[body : body + size])
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
        return body + size + 2


def _status(sid: bytes, head: bytes) -> Status:
    """`NATS/1.0 408 Request Timeout` and its headers."""
    lines = head.split(CRLF)
    words = lines[0].split(b" ")
    code = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    pending = 0
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"nats-pending-messages" and value.strip().isdigit():
            pending = int(value)
    return Status(sid, code, pending)

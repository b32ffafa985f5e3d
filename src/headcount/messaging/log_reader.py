"""Read partitions of the log: fast, in order, with back-pressure.

Resume contract: `follow(p, after)` delivers every message of partition p with a stream sequence greater than
`after`, in order and each once, as long as the log holds it; of the two copies of a QoS 1 message (see
`qos1`) the acknowledged one. Nothing is acknowledged: the position to resume from is in the caller's
snapshots. After any LogError the reader is to be closed; a new one resumes after the last processed message.

The reader has its own socket and parser: nats-py, which makes an object and a task switch of each message,
reads 30 to 100 thousand per second, this one several hundred thousand (lab/figures/pipeline_throughput.py).
Pull requests are renewed as messages arrive, so at most PULL messages of a partition are on the way, and
nothing is requested while the caller is busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import operator
import random
import secrets
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress, islice, pairwise

import numpy as np

from headcount.counting.fix_columns import I8
from headcount.errors import LogError
from headcount.messages.topics import FIX_STREAM, TICK_SUBJECT
from headcount.messaging import qos1
from headcount.messaging.connection import Connection, Endpoint
from headcount.messaging.jetstream import NS, request, stream_info, temporary_consumer
from headcount.messaging.parser import ProtocolParser, ServerMessages, ServerStatus
from headcount.messaging.raw_batch import RawBatch

_log = logging.getLogger(__name__)

#: Messages of one partition requested in advance; at 250 bytes each, this bounds the data in flight.
PULL = 4_000
PULL_EXPIRES_S = 60
CHUNK_BYTES = 1 << 20
#: Of nanoseconds since 1970, from 2001 to 2286.
NS_DIGITS = 19
#: The server deletes a consumer without a pull request for this long.
CONSUMER_IDLE_S = 120
CONNECT_TIMEOUT_S = 5.0
#: A stream without a leader doesn't answer; during the wait nothing else is read.
ANSWER_S = 2.0
#: Repetitions of a request to a new consumer that isn't known yet, and the pause before each.
MAX_EARLY, EARLY_S = 20, 0.05


@dataclass(slots=True)
class _FollowedPartition:
    partition: int
    consumer: str
    sid: bytes
    outstanding: int = 0  # messages requested and not yet delivered
    early: int = 0  # requests before the consumer was known
    delivered: int = 0  # consumer sequence of the last message; a gap means that messages were lost


class LogReader:
    """Reads any number of partitions over one connection, for one task; use `open_reader`."""

    def __init__(self, sock: socket.socket, parser: ProtocolParser, connection: Connection) -> None:
        """Take over a connected socket. `connection` is used to create and delete consumers."""
        self._socket = sock
        self._parser = parser
        self._connection = connection
        self._inbox = f"_INBOX.{secrets.token_hex(11)}"
        self._followed: dict[bytes, _FollowedPartition] = {}
        self._sids = 0
        self._receiving: asyncio.Future[bytes] | None = None

    async def follow(self, partition: int, after: int) -> int:
        """Read a partition from the message after stream sequence `after` (0 = from its start).

        Returns:
            The sequence after which it reads: less than `after` if the log has lost its end.

        Raises:
            LogError: if the partition's stream isn't there or the server doesn't answer.
        """
        consumer = f"r{secrets.token_hex(8)}"
        stream = FIX_STREAM.format(partition=partition)
        last = (await stream_info(self._connection, stream, timeout_s=ANSWER_S)).state.last_seq
        if last < after:
            # the server lost the end of its log (power cut): continue after its last message;
            # reading messages twice changes no count
            _log.warning("%s ends at %d, before %d where reading stopped", stream, last, after)
            after = last
        start = {"deliver_policy": "by_start_sequence", "opt_start_seq": after + 1}
        config = temporary_consumer(CONSUMER_IDLE_S, name=consumer, **start)
        body = {"stream_name": stream, "config": config}
        await request(self._connection, f"CONSUMER.CREATE.{stream}.{consumer}", body, timeout_s=ANSWER_S)
        self._sids += 1
        followed = _FollowedPartition(partition, consumer, str(self._sids).encode())
        self._followed[followed.sid] = followed
        await self._send(f"SUB {self._inbox}.{self._sids} {self._sids}\r\n".encode())
        await self._pull(followed)
        return after

    async def leave(self, partition: int) -> None:
        """Stop reading a partition; messages on the way are dropped."""
        for sid, followed in list(self._followed.items()):
            if followed.partition == partition:
                del self._followed[sid]
                await self._send(b"UNSUB " + sid + b"\r\n")
                await self._remove(followed)

    async def tick(self, partitions: Sequence[int]) -> None:
        """Write the log's clock into partitions."""
        subjects = [TICK_SUBJECT.format(partition=number) for number in partitions]
        await self._send("".join(f"PUB {subject} 0\r\n\r\n" for subject in subjects).encode())

    async def read(self, within_s: float = math.inf) -> list[RawBatch]:
        """Wait for messages and return them by partition; none if none came in time.

        Raises:
            LogError: if the connection is lost or messages are missing.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + within_s
        while True:
            chunk = await self._receive(None if within_s == math.inf else until_s - loop.time())
            if chunk is None:
                return []
            if not chunk:
                raise LogError("connection to the log closed by the server")
            batch = self._parser.feed(chunk)
            if batch.pings:
                await self._send(b"PONG\r\n" * batch.pings)
            for status in batch.statuses:
                await self._settle(status)
            if len(batch) and (found := await self._deliver(batch)):
                return found

    async def _receive(self, within_s: float | None) -> bytes | None:
        """Bytes from the server; None if none came in time.

        Receiving continues after that time: when cancelled, it could have taken bytes from the socket already.
        """
        if self._receiving is None:
            receive = asyncio.get_running_loop().sock_recv(self._socket, CHUNK_BYTES)
            self._receiving = asyncio.ensure_future(receive)
        done, _ = await asyncio.wait(
            {self._receiving}, timeout=None if within_s is None else max(within_s, 0.0)
        )
        if not done:
            return None
        receiving, self._receiving = self._receiving, None
        try:
            return receiving.result()
        except OSError as error:
            raise LogError(f"connection to the log lost: {error}") from error

    def close(self) -> None:
        """Close the connection."""
        if self._receiving is not None:
            self._receiving.cancel()
        self._socket.close()

    async def _deliver(self, batch: ServerMessages) -> list[RawBatch]:
        sids = batch.sids
        # the server sends a partition's messages in runs
        turns = compress(range(1, len(sids)), map(operator.ne, sids, islice(sids, 1, None)))
        edges = [0, *turns, len(sids)]
        parts: dict[bytes, ServerMessages] = {}
        for start, stop in pairwise(edges):
            part = parts.setdefault(sids[start], ServerMessages())
            part.subjects += batch.subjects[start:stop]
            part.replies += batch.replies[start:stop]
            part.payloads += batch.payloads[start:stop]
            part.qos += batch.qos[start:stop]
        found = []
        for sid, part in parts.items():
            followed = self._followed.get(sid)
            if followed is None:
                continue
            raw = _raw_batch(followed, part)
            if len(raw):
                found.append(raw)
            if followed.outstanding <= PULL // 2:
                await self._pull(followed)
        return found

    async def _settle(self, status: ServerStatus) -> None:
        """Renew a pull request that has ended before it was filled."""
        followed = self._followed.get(status.sid)
        if followed is None or status.code == 100:
            return
        if status.code == 503 and not followed.delivered and followed.early < MAX_EARLY:
            # a core of several nodes: it takes a moment until all know a new consumer
            followed.early += 1
            await asyncio.sleep(EARLY_S)
            followed.outstanding = 0
            await self._pull(followed)
            return
        if status.code != 408 and not status.pending:
            # the consumer is gone, or the server is shutting down
            raise LogError(f"partition {followed.partition}: the server ended the consumer ({status.code})")
        followed.outstanding = max(0, followed.outstanding - max(status.pending, 1))
        if followed.outstanding <= PULL // 2:
            await self._pull(followed)

    async def _pull(self, followed: _FollowedPartition) -> None:
        ask = PULL - followed.outstanding
        followed.outstanding = PULL
        stream = FIX_STREAM.format(partition=followed.partition)
        body = json.dumps({"batch": ask, "expires": PULL_EXPIRES_S * NS}).encode()
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{followed.consumer}"
        inbox = f"{self._inbox}.{followed.sid.decode()}"
        await self._send(f"PUB {subject} {inbox} {len(body)}\r\n".encode() + body + b"\r\n")

    async def _send(self, data: bytes) -> None:
        try:
            await asyncio.get_running_loop().sock_sendall(self._socket, data)
        except OSError as error:
            raise LogError(f"connection to the log lost: {error}") from error

    async def _remove(self, followed: _FollowedPartition) -> None:
        """Request the deletion of the consumer without waiting: the server deletes it after a while anyway."""
        stream = FIX_STREAM.format(partition=followed.partition)
        with contextlib.suppress(LogError):
            if self._connection.is_connected:
                await self._connection.publish(f"$JS.API.CONSUMER.DELETE.{stream}.{followed.consumer}")


def _raw_batch(followed: _FollowedPartition, part: ServerMessages) -> RawBatch:
    """Read `$JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<ns>.<pending>`."""
    replies = part.replies
    n = len(replies)
    first, last = replies[0].split(b"."), replies[-1].split(b".")
    if int(first[6]) != followed.delivered + 1 or int(last[6]) != followed.delivered + n:
        raise LogError(f"partition {followed.partition}: messages were lost on the way to the reader")
    followed.delivered += n
    followed.outstanding -= n
    seq: I8 = np.arange(int(first[5]), int(last[5]) + 1, dtype=np.int64)
    if len(seq) != n:  # some were removed from the middle of the log
        seq = np.array([int(reply.split(b".", 6)[5]) for reply in replies], dtype=np.int64)
    pending = int(last[8])
    batch = RawBatch(
        followed.partition, part.subjects, part.payloads, seq, _received_ns(replies, len(last[8])), pending
    )
    return batch if part.qos.count(b"0") + part.qos.count(b"") == n else _acknowledged(batch, part.qos)


def _acknowledged(batch: RawBatch, qos: list[bytes]) -> RawBatch:
    """The batch without copies that were delivered before they were acknowledged."""
    counted = batch.pick(list(map(qos1.counts, batch.subjects, qos)))
    return replace(counted, subjects=list(map(qos1.plain, counted.subjects)))


def _received_ns(replies: list[bytes], pending_digits: int) -> I8:
    """The nanoseconds of each reply: 19 digits before the last dot and the pending messages.

    Nearly always all replies of a chunk have equally many digits pending. The cut of one that has not contains
    a dot and is no number.
    """
    stop = -1 - pending_digits
    try:
        found = [int(reply[stop - NS_DIGITS : stop]) for reply in replies]
    except ValueError:
        found = [int(reply.rsplit(b".", 2)[1]) for reply in replies]
    return np.array(found, dtype=np.int64)


@contextlib.asynccontextmanager
async def open_reader(endpoint: Endpoint, connection: Connection) -> AsyncIterator[LogReader]:
    """A reader with its own socket; it leaves all partitions at the end.

    Raises:
        LogError: if the server can't be reached or refuses the connection.
    """
    sock, rest = await _connect(endpoint)
    parser = ProtocolParser()
    parser.feed(rest)
    reader = LogReader(sock, parser, connection)
    try:
        yield reader
    finally:
        reader.close()
        if connection.is_connected:
            await asyncio.gather(*map(reader._remove, reader._followed.values()))  # noqa: SLF001


async def _connect(endpoint: Endpoint) -> tuple[socket.socket, bytes]:
    """A connection to one of the servers, tried in random order, and the bytes after the greeting."""
    addresses = list(endpoint.addresses)
    random.shuffle(addresses)
    problem: Exception | None = None
    for host, port in addresses:
        try:
            return await _connect_to(host, port, endpoint)
        except (OSError, TimeoutError, LogError) as error:
            problem = error
    if isinstance(problem, LogError):
        raise problem
    raise LogError(f"{endpoint}: can't connect: {problem!r}") from problem


async def _connect_to(host: str, port: int, endpoint: Endpoint) -> tuple[socket.socket, bytes]:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(CONNECT_TIMEOUT_S / len(endpoint.addresses)):
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, address)
            return sock, await _greet(sock, endpoint)
        except BaseException:
            sock.close()
            raise


async def _greet(sock: socket.socket, endpoint: Endpoint) -> bytes:
    """INFO, CONNECT, PING until PONG; what came after that."""
    loop = asyncio.get_running_loop()
    options = {
        "verbose": False,
        "pedantic": False,
        "user": endpoint.user,
        "pass": endpoint.password,
        "lang": "python",
        "version": "1",
        "name": "headcount log reader",
        "protocol": 1,
        "headers": True,
        "no_responders": True,
    }
    await loop.sock_sendall(sock, b"CONNECT " + json.dumps(options).encode() + b"\r\nPING\r\n")
    data = b""
    while b"PONG\r\n" not in data:
        more = await loop.sock_recv(sock, 65_536)
        data += more
        if b"-ERR" in data or not more:
            raise LogError(f"{endpoint}: refused: {data[-120:]!r}")
    return data.partition(b"PONG\r\n")[2]

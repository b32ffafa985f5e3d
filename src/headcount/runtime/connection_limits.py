"""Limits on the connections of an HTTP server: in all, per address, and in the time that a client may take.

A connection waits for its client from accept to the end of the request's head, while the body arrives, and while the
client does not read the response. Each wait has a limit, which arriving bytes do not extend. At the maximum number
of connections, the one that has waited longest is closed, as nginx reuses connections: idle ones, however many, keep
no client out. Connections are counted where they are accepted, so that TLS handshakes are included.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import os
import resource
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

#: More connections need another process.
MAX_CONNECTIONS = 4000
#: Open files besides connections: the log, history files, connections that are being closed.
OWN_FILES = 256
#: Share of all connections that one address may have: a campus may have one address.
ADDRESS_SHARE = 0.25
#: Connections that are accepted in one step of the event loop; others wait in the system's queue.
BATCH = 64
#: Connections that may wait in that queue.
BACKLOG = 1024
HEAD_S, BODY_S, READ_S = 10.0, 60.0, 30.0
_SWEEP_S = 0.5
_LOG_INTERVAL_S = 60.0
_NO_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_log = logging.getLogger(__name__)


class LimitedConnection(socket.socket):
    """An accepted connection."""

    limits: ConnectionLimits
    address: str | None = None  # None: not limited by address
    deadline_s = math.inf  # when it is closed; infinite while the client waits for the server

    def close(self) -> None:
        """Close it, and free its place."""
        number = self.fileno()
        super().close()
        if number >= 0:
            self.limits.remove(number, self)


class LimitedListener(socket.socket):
    """A listening socket that accepts as many connections as `limits` allow."""

    limits: ConnectionLimits

    def listen(self, backlog: int = BACKLOG, /) -> None:
        """Keep the queue of the system long: asyncio passes its batch here, too."""
        super().listen(max(backlog, BACKLOG))

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection.

        Raises:
            BlockingIOError: no connection waits.
            ConnectionAbortedError: the next one was refused.
        """
        try:
            accepted, address = super().accept()
        except OSError as error:
            if error.errno not in _NO_RESOURCES:
                raise
            self.limits.no_resources(self, error)
            raise ConnectionAbortedError from error
        return self.limits.add(accepted, str(address[0])), address


class ConnectionLimits:
    """The connections of one server; `key` returns the address that a connection counts for, None for no limit."""

    def __init__(
        self, key: Callable[[str], str | None] = lambda _: None, max_connections: int | None = None
    ) -> None:
        """Allow `max_connections`; None: as many as the limit of open files allows."""
        self.max_connections = affordable() if max_connections is None else max_connections
        self.max_per_address = max(1, round(self.max_connections * ADDRESS_SHARE))
        self._key = key
        self._open: dict[int, LimitedConnection] = {}
        #: Those whose client has to act, in the order in which they began to wait.
        self._waiting: dict[LimitedConnection, None] = {}
        self._per_address: Counter[str] = Counter()
        #: Freed when no file can be opened, to accept and close the next connection instead of leaving it.
        self._spare: int | None = os.open(os.devnull, os.O_RDONLY)
        self._warned_s = -math.inf
        self.closed = 0  # connections refused or closed at a limit since the last warning

    def __len__(self) -> int:
        return len(self._open)

    def limited(self, listener: socket.socket) -> LimitedListener:
        """Take over a listening socket."""
        limited = LimitedListener(listener.family, listener.type, listener.proto, listener.detach())
        limited.limits = self
        return limited

    def add(self, accepted: socket.socket, peer: str) -> LimitedConnection:
        """Count a connection.

        Raises:
            ConnectionAbortedError: there are too many.
        """
        address = self._key(peer)
        at_limit = address is not None and self._per_address[address] >= self.max_per_address
        if (at_limit or len(self._open) >= self.max_connections) and not self._evict(
            address if at_limit else None
        ):
            accepted.close()
            self._warn(
                f"{len(self._open)} connections are open" + (f", {peer} has too many" if at_limit else "")
            )
            raise ConnectionAbortedError
        connection = LimitedConnection(accepted.family, accepted.type, accepted.proto, accepted.detach())
        connection.limits, connection.address = self, address
        self._open[connection.fileno()] = connection
        if address is not None:
            self._per_address[address] += 1
        self.wait(connection, HEAD_S)
        return connection

    def remove(self, number: int, connection: LimitedConnection) -> None:
        """Free a place."""
        self._waiting.pop(connection, None)
        if self._open.get(number) is connection:
            del self._open[number]
            if (address := connection.address) is not None:
                self._per_address[address] -= 1
                if not self._per_address[address]:
                    del self._per_address[address]

    def connection(self, transport: asyncio.BaseTransport) -> LimitedConnection | None:
        """Return the connection of a transport."""
        found = transport.get_extra_info("socket")
        return None if found is None else self._open.get(found.fileno())

    def wait(self, connection: LimitedConnection, limit_s: float) -> None:
        """Close a connection when its client has not acted within `limit_s`."""
        connection.deadline_s = time.monotonic() + limit_s
        self._waiting.pop(connection, None)
        self._waiting[connection] = None

    def resume(self, connection: LimitedConnection) -> None:
        """Stop waiting for the client."""
        connection.deadline_s = math.inf
        self._waiting.pop(connection, None)

    def no_resources(self, listener: LimitedListener, error: OSError) -> None:
        """Close the next connection and idle ones when the system has no file for it."""
        self._warn(
            f"no connection can be accepted: {error.strerror}; raise the limit of open files (ulimit -n)"
        )
        for _ in range(BATCH):
            self._evict(None)
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
            with contextlib.suppress(OSError):
                socket.socket.accept(listener)[0].close()
        with contextlib.suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY)

    @contextlib.asynccontextmanager
    async def sweeping(self) -> AsyncIterator[None]:
        """Close connections whose client is late while the body runs."""
        task = asyncio.create_task(self._sweep(), name="http: connection limits")
        try:
            yield
        finally:
            task.cancel()
            if self._spare is not None:
                os.close(self._spare)
                self._spare = None

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            now_s = time.monotonic()
            for connection in [each for each in self._waiting if each.deadline_s <= now_s]:
                self._shut_down(connection)

    def _evict(self, address: str | None) -> bool:
        """Close the connection that has waited longest, of this address if it is given."""
        for connection in self._waiting:
            if address is None or connection.address == address:
                self._shut_down(connection)
                self._warn(f"{len(self._open)} connections are open; closing idle ones")
                return True
        return False

    def _shut_down(self, connection: LimitedConnection) -> None:
        """End a connection. Its transport closes the socket, which stays the transport's until then."""
        self.remove(connection.fileno(), connection)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    def _warn(self, text: str) -> None:
        """Log a line at most once a minute."""
        self.closed += 1
        if time.monotonic() >= self._warned_s + _LOG_INTERVAL_S:
            _log.warning("%s (closed or refused so far: %d)", text, self.closed)
            self._warned_s = time.monotonic()


class LimitedProtocol(H11Protocol):
    """HTTP that reports to the limits of its connection whether it waits for the client."""

    limits: ClassVar[ConnectionLimits]
    _connection: LimitedConnection | None = None
    #: The head after this response, the body of this request, …; first the head, as in `ConnectionLimits.add`.
    _waits_for: object = ("head", None)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Find the connection."""
        super().connection_made(transport)
        self._connection = self.limits.connection(transport)

    def data_received(self, data: bytes) -> None:
        """Handle a part of a request."""
        super().data_received(data)
        self._update()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._update()

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._update()

    def resume_writing(self) -> None:
        """Go on, because the client has read."""
        super().resume_writing()
        self._update()

    def _update(self) -> None:
        if self._connection is None:
            return
        upgraded = self not in self.connections
        state: tuple[str, object] | None = None
        if upgraded:
            pass
        elif self.flow.write_paused:
            state = ("read", self.cycle)
        elif self.cycle is None or self.cycle.response_complete:
            state = ("head", self.cycle)
        elif self.cycle.more_body:
            state = ("body", self.cycle)
        if state == self._waits_for:
            return
        self._waits_for = state
        if state is None:
            self.limits.resume(self._connection)
        else:
            self.limits.wait(self._connection, {"head": HEAD_S, "body": BODY_S, "read": READ_S}[state[0]])


def protocol_of(limits: ConnectionLimits) -> type[LimitedProtocol]:
    """Return the protocol of a server with these limits."""
    return type("LimitedProtocol", (LimitedProtocol,), {"limits": limits})


def affordable() -> int:
    """Return how many connections the limit of open files allows, after raising it as far as allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + OWN_FILES
    if 0 <= soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(MAX_CONNECTIONS, max(soft - OWN_FILES, soft // 2))

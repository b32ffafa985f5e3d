"""A connection to the NATS servers of the core that is re-established whenever it is lost.

Only this package imports nats-py. Its errors leave it as `LogError`s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

import nats.aio.subscription
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from headcount.errors import LogTimeoutError, LogUnavailableError, NoRespondersError
from headcount.runtime.retry import RETRY_S
from headcount.runtime.tasks import cancel_all, unless_stopped
from headcount.settings.formats import joined

_log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 2
#: A server that disappears without closing the connection is noticed after three of these.
PING_INTERVAL_S = 120
FLUSH_TIMEOUT_S = 10

Message = Msg
Handler = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The addresses of the core's NATS servers, any of which will do, and the credentials to use there."""

    addresses: tuple[tuple[str, int], ...]
    user: str
    password: str

    @property
    def urls(self) -> list[str]:
        """The addresses as NATS clients take them."""
        return [f"nats://{joined(address)}" for address in self.addresses]

    def __repr__(self) -> str:
        """Without the password: representations end up in logs."""
        return f"Endpoint({self.user}@{joined(*self.addresses)})"


@contextlib.contextmanager
def _cancellable() -> Iterator[None]:
    """Raise a cancellation that nats-py catches where it flushes (`Client._flush_pending`)."""
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()
    try:
        yield
    finally:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError


@contextlib.contextmanager
def log_errors(what: str) -> Iterator[None]:
    """Turn nats-py's errors into ours; a cancellation that nats-py has caught is raised.

    Raises:
        NoRespondersError: nothing subscribes to the subject of a request.
        LogTimeoutError: no answer in time.
        LogUnavailableError: there is no connection.
    """
    try:
        with _cancellable():
            yield
    except nats.errors.NoRespondersError as error:
        raise NoRespondersError(f"{what}: nothing answers there") from error
    except TimeoutError as error:
        raise LogTimeoutError(f"{what}: no answer from the core in time. Is the broker running?") from error
    except (nats.errors.Error, OSError) as error:
        raise LogUnavailableError(
            f"{what}: no answer from the core: {error!r}. Is the broker running?"
        ) from error


class Subscription:
    """Calls a handler with each message on a subject."""

    def __init__(self, connection: Connection, subject: str, queue: str, handler: Handler) -> None:
        self._connection = connection
        self._subject = subject
        self._queue = queue
        self._handler = handler
        self._current: nats.aio.subscription.Subscription | None = None

    async def start(self, client: Client) -> None:
        """Subscribe over this client, which may replace an earlier one."""
        self._current = await client.subscribe(self._subject, self._queue, cb=self._handler)

    async def unsubscribe(self) -> None:
        """Stop; does nothing where the connection is lost or closed."""
        self._connection.subscriptions.discard(self)
        with _cancellable(), contextlib.suppress(nats.errors.Error, OSError):
            if self._current is not None:
                await self._current.unsubscribe()


class Inbox:
    """A subject for the answers to requests of which each has several, and those that have come."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self._queue: asyncio.Queue[Message] = asyncio.Queue()

    async def put(self, message: Message) -> None:
        """Keep a message until it is read."""
        self._queue.put_nowait(message)

    async def next(self, within_s: float) -> Message:
        """The next message.

        Raises:
            LogUnavailableError: none came in time.
        """
        if not self._queue.empty():
            return self._queue.get_nowait()
        try:
            async with asyncio.timeout(within_s):
                return await self._queue.get()
        except TimeoutError as error:
            raise LogUnavailableError(f"no answer from the core within {within_s:g} s") from error


class Connection:
    """Publish, request and subscribe; opened by `connected` or `connected_once`.

    Every call raises LogUnavailableError where the server can't be reached.
    """

    def __init__(self, client: Client | None = None) -> None:
        """Use a client that is connected; without one, until `replace_client`, there is no connection."""
        self._client = client
        self._earlier_reconnects = 0
        self.subscriptions: set[Subscription] = set()

    @property
    def client(self) -> Client:
        """The client of nats-py, for modules of this package.

        Raises:
            LogUnavailableError: not connected yet.
        """
        if self._client is None:
            raise LogUnavailableError("not connected to the core yet")
        return self._client

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self._client is not None and self._client.is_connected

    @property
    def reconnects(self) -> int:
        """How often the connection was lost and re-established."""
        return self._earlier_reconnects + (0 if self._client is None else self._client.stats["reconnects"])

    async def replace_client(self, client: Client) -> None:
        """Go on over another client: nats-py closes a client for good when the server refuses it once."""
        if self._client is not None:
            self._earlier_reconnects = self.reconnects + 1
        self._client = client
        for subscription in list(self.subscriptions):
            with contextlib.suppress(nats.errors.Error, OSError):  # closed again: another one comes
                await subscription.start(client)

    async def publish(
        self, subject: str, payload: bytes = b"", *, reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Send a message without waiting for an answer."""
        with log_errors(subject):
            await self.client.publish(subject, payload, reply, headers)

    async def request(self, subject: str, payload: bytes = b"", *, timeout_s: float) -> bytes:
        """The payload of the answer to a request.

        Raises:
            NoRespondersError: nothing subscribes to the subject.
        """
        return (await self.request_message(subject, payload, timeout_s=timeout_s)).data

    async def request_message(
        self, subject: str, payload: bytes = b"", *, timeout_s: float, headers: dict[str, str] | None = None
    ) -> Message:
        """The answer to a request, with its headers."""
        with log_errors(subject):
            return await self.client.request(subject, payload, timeout=timeout_s, headers=headers)

    async def subscribe(self, subject: str, handler: Handler, *, queue: str = "") -> Subscription:
        """Call `handler` with each message on `subject`, from the first connect on and after each reconnect.

        Of the subscribers with the same `queue`, one receives each message.
        """
        subscription = Subscription(self, subject, queue, handler)
        if self._client is not None:
            with log_errors(subject):
                await subscription.start(self._client)
        self.subscriptions.add(subscription)
        return subscription

    @contextlib.asynccontextmanager
    async def inbox(self) -> AsyncIterator[Inbox]:
        """A subject of our own, whose messages wait without a limit until they are read."""
        with log_errors("an inbox"):
            inbox = Inbox(self.client.new_inbox())
            subscription = await self.client.subscribe(
                inbox.subject, cb=inbox.put, pending_msgs_limit=-1, pending_bytes_limit=-1
            )
        try:
            yield inbox
        finally:
            with _cancellable(), contextlib.suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()

    async def flush(self) -> None:
        """Wait until the server has received everything that was published."""
        with log_errors("flush"):
            await self.client.flush(FLUSH_TIMEOUT_S)

    async def close(self) -> None:
        """Close the connection for good."""
        if self._client is not None:
            await _close(self._client)


@contextlib.asynccontextmanager
async def connected(
    endpoint: Endpoint,
    name: str,
    stop: asyncio.Event | None = None,
    *,
    wait: bool = True,
    connection: Connection | None = None,
    retry_s: float = RETRY_S,
    ping_interval_s: int = PING_INTERVAL_S,
    on_connect: Callable[[], None] = lambda: None,
    on_disconnect: Callable[[], None] = lambda: None,
) -> AsyncIterator[Connection]:
    """A connection to one of the core's servers, and to another one whenever it is lost.

    Args:
        endpoint: where the servers are.
        name: of this client, for the server's list of connections.
        stop: ends the wait for the first connection.
        wait: until there is a connection; otherwise it is made in the background.
        connection: one that isn't connected yet, for callers that must have it earlier.
        retry_s: between attempts to connect.
        ping_interval_s: how often the server must answer for the connection to be alive.
        on_connect: called after each connect and reconnect.
        on_disconnect: called whenever the connection is lost.

    Raises:
        StopRequestedError: `stop` was set while it waited.
    """
    connection, opened, closed = connection or Connection(), asyncio.Event(), asyncio.Event()
    client = Client()
    logged: set[str] = set()

    async def on_error(error: Exception) -> None:
        if repr(error) not in logged:  # each attempt fails, twice a second
            logged.add(repr(error))
            _log.info("%s: connection: %r", endpoint, error)

    async def on_lost() -> None:
        if not client.is_closed:
            on_disconnect()

    async def on_restored() -> None:
        logged.clear()
        on_connect()

    async def on_closed() -> None:
        closed.set()

    async def run() -> None:
        nonlocal client
        while True:
            # nats-py tries the servers in turn without end, here and when the connection is lost
            await client.connect(
                endpoint.urls,
                user=endpoint.user,
                password=endpoint.password,
                name=name,
                max_reconnect_attempts=-1,
                reconnect_time_wait=retry_s,  # type: ignore[arg-type]  # it only sleeps that long
                connect_timeout=CONNECT_TIMEOUT_S,
                ping_interval=ping_interval_s,
                error_cb=on_error,
                disconnected_cb=on_lost,
                reconnected_cb=on_restored,
                closed_cb=on_closed,
            )
            await connection.replace_client(client)
            opened.set()
            await on_restored()
            await closed.wait()
            closed.clear()
            _log.warning("%s: the connection was closed; connecting again", endpoint)
            await asyncio.sleep(retry_s)
            client = Client()

    running = asyncio.create_task(run(), name=f"{name}: connection")
    try:
        if wait:
            await unless_stopped(_first(opened, running), stop or asyncio.Event())
        yield connection
    finally:
        await cancel_all({running})
        await _close(client)


async def _first(opened: asyncio.Event, running: asyncio.Task[None]) -> None:
    """Return when the first connection is there; raise what ended the task that makes it."""
    waiting = asyncio.create_task(opened.wait(), name="first connection")
    try:
        await asyncio.wait({waiting, running}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    if running.done():
        running.result()


@contextlib.asynccontextmanager
async def connected_once(
    endpoint: Endpoint, name: str, *, connect_timeout_s: int = CONNECT_TIMEOUT_S
) -> AsyncIterator[Connection]:
    """A connection that isn't re-established when it is lost.

    Raises:
        LogUnavailableError: no server answers, or none accepts the credentials; its cause is the last one's error.
    """
    client = Client()
    errors: list[Exception] = []

    async def on_error(error: Exception) -> None:
        errors.append(error)

    try:
        try:
            await client.connect(
                endpoint.urls,
                user=endpoint.user,
                password=endpoint.password,
                name=name,
                connect_timeout=connect_timeout_s,
                allow_reconnect=False,
                max_reconnect_attempts=1,  # otherwise it is tried for two minutes
                reconnect_time_wait=0.2,  # type: ignore[arg-type]  # as above
                error_cb=on_error,
            )
        except (nats.errors.Error, OSError, TimeoutError) as error:
            last = errors[-1] if errors else error
            raise LogUnavailableError(f"{endpoint!r}: {str(last) or repr(last)}") from last
        yield Connection(client)
    finally:
        await _close(client)
        _raise_swallowed_cancellation()


async def _close(client: Client) -> None:
    with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
        await client.close()


def _raise_swallowed_cancellation() -> None:
    """nats-py catches CancelledError where it flushes (`Client._flush_pending`) and goes on."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError

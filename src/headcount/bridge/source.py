"""The interface of a source: another broker or bus, from which a bridge copies messages.

    mqtt://, mqtts://    bridge/mqtt.py
    amqp://, amqps://    bridge/amqp.py
    kafka://, kafkas://  bridge/kafka.py
    redis://, rediss://  bridge/redis.py
    gtfs-rt+https://     bridge/gtfs_realtime.py

A source reconnects by itself. It must deliver a message again, now or at the next start, until `acknowledge` has
been called after it; the counting rules judge repeated fixes as `duplicate`.
"""

from __future__ import annotations

import asyncio
import importlib
import random
import ssl
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from headcount.decoders.formats import Format
from headcount.errors import SettingsError
from headcount.runtime.retry import Backoff
from headcount.runtime.tasks import wait_any
from headcount.settings.bridge import BridgeSettings
from headcount.settings.formats import split

#: Messages of one batch at most.
BATCH_SIZE = 500
#: Pauses between attempts to connect: each is half as long to as long as the back-off, at random.
FIRST_PAUSE_S, MAX_PAUSE_S = 0.5, 30.0

#: Scheme of a URL → module with `source(options)`, and the extra that it needs.
_MODULES = {
    "mqtt": ("mqtt", ""),
    "mqtts": ("mqtt", ""),
    "amqp": ("amqp", "amqp"),
    "amqps": ("amqp", "amqp"),
    "kafka": ("kafka", "kafka"),
    "kafkas": ("kafka", "kafka"),
    "redis": ("redis", "redis"),
    "rediss": ("redis", "redis"),
    "gtfs-rt+http": ("gtfs_realtime", "transit"),
    "gtfs-rt+https": ("gtfs_realtime", "transit"),
}
_ENCRYPTED = {"mqtts", "amqps", "kafkas", "rediss", "gtfs-rt+https"}
_CANONICAL_TOPICS = ("headcount/+/+/+/fix", "headcount/+/+/+/status")


class SourceMessage(NamedTuple):
    """A message of a source."""

    topic: str  # as in MQTT: levels with `/` between
    payload: bytes
    ignored: str = ""  # why it is not copied, a label of a metric; it is acknowledged with the others


class Source(Protocol):
    """A broker or bus."""

    exclusive: bool
    """Whether at most one bridge of a name may read: the others wait for its lease."""

    problem: str
    """Why nothing can be received now; "" while connected."""

    def batches(self, stop: asyncio.Event) -> AsyncGenerator[list[SourceMessage], None]:
        """Yield messages in order until `stop` is set, then close; reconnects by itself.

        The caller calls `acknowledge` after each batch, before it takes the next one.
        """

    async def acknowledge(self) -> None:
        """Note that everything that was yielded is in the log. A failure is not an error: it comes again."""


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Everything that a source needs to know."""

    url: SplitResult
    user: str
    password: str
    topics: tuple[str, ...]  # of the settings; () = those of all formats
    default_topics: tuple[str, ...]  # as MQTT filters
    name: str  # of the client, queue or consumer group
    tls: Callable[[], ssl.SSLContext] | None  # makes a context; None without TLS
    settings: BridgeSettings

    @property
    def address(self) -> str:
        """The source in log lines: without user, password and query."""
        return f"{self.url.scheme}://{self.url.netloc.rpartition('@')[2]}"

    def __repr__(self) -> str:
        """Omit the password: representations end up in logs."""
        return f"SourceOptions({self.address}, {self.name})"


def default_topics(formats: Sequence[Format]) -> tuple[str, ...]:
    """Our own topics and those of formats, as MQTT filters."""
    return (*_CANONICAL_TOPICS, *(topic for each in formats for topic in each.topics))


def source_options(settings: BridgeSettings, unique: str, formats: Sequence[Format]) -> SourceOptions:
    """Read the settings.

    Args:
        settings: the section `bridge`.
        unique: a part of the default name that no other deployment has.
        formats: whose topics are copied beside our own where `topics` is not set.

    Raises:
        SettingsError: `from` is not set or not valid, or the password's file can't be read.
    """
    if not settings.from_:
        raise SettingsError("bridge.from", "is not set; use the URL of the broker to copy from")
    try:
        url = urlsplit(settings.from_)
        _ = url.port if "," not in url.netloc else None  # raises where it is no number
    except ValueError as error:
        raise SettingsError("bridge.from", f"is not a valid URL: {error}") from error
    password = unquote(url.password or "")
    if settings.password_file is not None:
        try:
            password = settings.password_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                "bridge.password_file", f"{settings.password_file} cannot be read: {error}"
            ) from error
    encrypted = url.scheme in _ENCRYPTED
    return SourceOptions(
        url,
        settings.user or unquote(url.username or ""),
        password,
        split(settings.topics),
        default_topics(formats),
        settings.name or f"headcount-{unique}",
        partial(_context, settings) if encrypted else None,
        settings,
    )


def open_source(options: SourceOptions) -> Source:
    """The source of a URL, not connected yet.

    Raises:
        SettingsError: a package for it is not installed.
    """
    module, extra = _MODULES[options.url.scheme]
    try:
        source: Source = importlib.import_module(f"headcount.bridge.{module}").source(options)
    except ModuleNotFoundError as error:
        if not extra or (error.name or "").startswith("headcount"):
            raise
        raise SettingsError(
            "bridge.from",
            f"{options.url.scheme}:// needs a package that is not installed; run pip install 'headcount[{extra}]'",
        ) from error
    return source


class Reconnecting:
    """The pauses between attempts to connect: growing, and at random so that bridges don't attempt together."""

    def __init__(self) -> None:
        self._backoff = Backoff(FIRST_PAUSE_S, MAX_PAUSE_S)

    def begin(self) -> None:
        """Note that an attempt begins."""
        self._backoff.begin()

    async def pause(self, stop: asyncio.Event) -> None:
        """Wait before the next attempt; returns early when `stop` is set."""
        await wait_any(stop, timeout_s=self._backoff.pause_s() * random.uniform(0.5, 1.0))  # noqa: S311


def _context(settings: BridgeSettings) -> ssl.SSLContext:
    from headcount.tls.contexts import client_context, load_certificate  # noqa: PLC0415  # only with TLS

    context = client_context(settings.ca)
    if settings.cert is not None and settings.key is not None:
        load_certificate(context, settings.cert, settings.key)
    return context

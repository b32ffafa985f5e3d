"""The formats by name, with the topics that they are published on; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from headcount.decoders import iotp, owntracks
from headcount.decoding import Decode, Decoded, DecodeError, Message


@dataclass(frozen=True, slots=True)
class Format:
    """A format of messages."""

    name: str
    topics: tuple[str, ...]  # MQTT topic filters, without `#`

    def matches(self, topic: str) -> bool:
        """Whether messages on this topic have the format."""
        levels = topic.split("/")
        return any(_matches(pattern.split("/"), levels) for pattern in self.topics)


@dataclass(frozen=True, slots=True)
class ShippedFormat(Format):
    """A format of headcount itself."""

    decode: Decode


#: The formats that headcount ships.
SHIPPED = (
    ShippedFormat("owntracks", owntracks.TOPICS, owntracks.decode),
    ShippedFormat("iotp", tuple(iotp.KIND_OF_TOPIC), iotp.decode),
)


def decode_message(format_: ShippedFormat, payload: bytes, message: Message) -> list[Decoded]:
    """Decode a message; one that is not valid gives one DecodeError. Never raises."""
    try:
        return format_.decode(payload, message)
    except DecodeError as error:
        return [error]


def subjects_of(topics: Iterable[str]) -> list[str]:
    """The NATS subjects of MQTT topic filters without `#`."""
    return [topic.replace("/", ".").replace("+", "*") for topic in topics]


def _matches(pattern: list[str], levels: list[str]) -> bool:
    return len(pattern) == len(levels) and all(
        part in ("+", level) for part, level in zip(pattern, levels, strict=True)
    )

"""The formats by name, with the topics that they are published on; pure."""

from __future__ import annotations

from dataclasses import dataclass

from headcount.decoders import iotp, owntracks
from headcount.decoding import Decode, Decoded, DecodeError, Message


@dataclass(frozen=True, slots=True)
class Format:
    """A format of messages, and its decoder."""

    name: str
    topics: tuple[str, ...]  # MQTT topic filters
    decode: Decode

    def matches(self, topic: str) -> bool:
        """Whether messages on this topic have the format."""
        levels = topic.split("/")
        return any(_matches(pattern.split("/"), levels) for pattern in self.topics)


#: The formats that headcount ships.
SHIPPED = (
    Format("owntracks", owntracks.TOPICS, owntracks.decode),
    Format("iotp", tuple(iotp.KIND_OF_TOPIC), iotp.decode),
)


def decode_message(format_: Format, payload: bytes, message: Message) -> list[Decoded]:
    """Decode a message; one that is not valid gives one DecodeError. Never raises."""
    try:
        return format_.decode(payload, message)
    except DecodeError as error:
        return [error]


def _matches(pattern: list[str], levels: list[str]) -> bool:
    if pattern[-1] == "#":
        pattern, levels = pattern[:-1], levels[: len(pattern) - 1]
    return len(pattern) == len(levels) and all(
        part in ("+", level) for part, level in zip(pattern, levels, strict=True)
    )

"""The topic of a record of a bus, which has keys in place of MQTT topics; pure.

topic= in the URL           that topic, with the record's key in place of {key}
a header or field `topic`   its value
a key with a `/`            the key, as connectors of MQTT set it
otherwise                   the name of the bus's topic or stream, such as car-iotp
"""

from __future__ import annotations

from urllib.parse import parse_qs

KEY = "{key}"


def topic_pattern(query: str) -> str:
    """The pattern in the query of a URL; "" where it has none."""
    return parse_qs(query).get("topic", [""])[-1]


def record_topic(pattern: str, named: bytes | str | None, key: bytes | str | None, stream: str) -> str:
    """The topic of a record; "" where its text is not UTF-8, or it has no key for the pattern.

    Args:
        pattern: of all records, "" where each has its own topic.
        named: the record's header or field `topic`.
        key: the record's key.
        stream: the name of the bus's topic or stream.
    """
    try:
        named, key = _text(named), _text(key)
    except UnicodeDecodeError:
        return ""
    if pattern:
        return pattern.replace(KEY, key) if key or KEY not in pattern else ""
    if named:
        return named
    return key if "/" in key else stream


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""

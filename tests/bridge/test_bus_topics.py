"""The topic of a record of a bus."""

from __future__ import annotations

import pytest

from headcount.bridge.bus_topics import record_topic, topic_pattern


@pytest.mark.parametrize(
    ("pattern", "named", "key", "topic"),
    [
        ("", b"owntracks/anna/phone", b"owntracks/ben/phone", "owntracks/anna/phone"),
        ("", None, b"headcount/ul/person/p1/fix", "headcount/ul/person/p1/fix"),
        ("", None, b"p1", "car-iotp"),
        ("", None, None, "car-iotp"),
        ("headcount/ul/person/{key}/fix", b"mobile-iotp", b"p1", "headcount/ul/person/p1/fix"),
        ("mobile-iotp", None, b"p1", "mobile-iotp"),
        ("headcount/ul/person/{key}/fix", None, None, ""),
        ("", None, b"\xff/", ""),
    ],
)
def test_topic(pattern: str, named: bytes | None, key: bytes | None, topic: str) -> None:
    """The pattern counts most, then the header, then a key like an MQTT topic, then the stream's name."""
    assert record_topic(pattern, named, key, "car-iotp") == topic


def test_pattern_of_a_url() -> None:
    """The pattern is the parameter `topic`."""
    assert topic_pattern("topic=headcount/ul/person/{key}/fix&sasl=PLAIN") == "headcount/ul/person/{key}/fix"
    assert topic_pattern("") == ""

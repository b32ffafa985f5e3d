"""Retained MQTT messages by topic."""

from __future__ import annotations

from collections.abc import Callable

from headcount.messaging import jetstream
from headcount.messaging.connection import Connection
from headcount.messaging.streams import MQTT_RETAINED

_ANSWER_S = 5.0


async def remove_topics(connection: Connection, pattern: str, unwanted: Callable[[str], bool]) -> int:
    """Remove the retained messages of unwanted topics among those that `pattern` matches; return their number.

    Raises:
        LogError: the core does not answer, or refuses.
    """
    prefix = "$MQTT.rmsgs."
    body = {"subjects_filter": prefix + pattern.replace("/", ".").replace("+", "*")}
    info = await jetstream.request(connection, f"STREAM.INFO.{MQTT_RETAINED}", body, timeout_s=_ANSWER_S)
    found = [
        subject
        for subject in info["state"].get("subjects") or {}
        if unwanted(subject.removeprefix(prefix).replace(".", "/"))
    ]
    for subject in found:
        body = {"filter": subject}
        await jetstream.request(connection, f"STREAM.PURGE.{MQTT_RETAINED}", body, timeout_s=_ANSWER_S)
    return len(found)

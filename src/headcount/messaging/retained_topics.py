"""Retained MQTT messages by topic."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import msgspec

from headcount.messages.topics import FOREIGN_SUBJECTS
from headcount.messaging import jetstream
from headcount.messaging.connection import Connection
from headcount.messaging.streams import MQTT_RETAINED

_ANSWER_S = 5.0
#: Subjects on which devices publish: their retained messages serve no purpose and may hold positions.
_DEVICE_SUBJECTS = ("fix.>", "headcount.*.*.*.*", *FOREIGN_SUBJECTS)


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


async def purge_retained(
    request: Callable[[str, bytes], Awaitable[bytes]], plugin_subjects: Iterable[str] = ()
) -> int:
    """Remove messages of devices from the retained ones, and return their number. To be called often.

    OwnTracks publishes every position as retained. The server would keep each device's last one forever;
    with this it is gone in seconds, and raw positions are only in the log.

    Args:
        request: sends a request to the server with all rights: (subject, payload) to the answer.
        plugin_subjects: subjects of installed formats.

    Raises:
        LogError: the server refuses.
    """
    purged = 0
    for subject in (*_DEVICE_SUBJECTS, *plugin_subjects):
        body = msgspec.json.encode({"filter": f"$MQTT.rmsgs.{subject}"})
        answer = await request("$JS.API.STREAM.PURGE.$MQTT_rmsgs", body)
        jetstream.check_answer("STREAM.PURGE", answer)
        purged += msgspec.json.decode(answer)["purged"]
    return purged

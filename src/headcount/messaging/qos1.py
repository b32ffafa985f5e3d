"""What a PUBACK is worth: a fix that a device has been told is taken stands in its partition's log.

The server's MQTT side delivers a message of QoS 1 or 2 twice into the account. First as everything
is, on its own subject, without waiting for anybody. Then under `$MQTT.msgs.`, for storing; and the
PUBACK is sent when the stream that holds this second subject says that it has stored it. By itself
the server keeps all of these in one stream of its own, `$MQTT_msgs`, and what it has acknowledged
may still be waiting in memory for our stream when it is killed.

So our streams hold the second subject as well, and `$MQTT_msgs` only the rest:

    QoS 0   fix.3.ul.person.a                 counted
    QoS 1   fix.3.ul.person.a                 early: not acknowledged yet, not counted
            $MQTT.msgs.fix.3.ul.person.a      stored, then PUBACK: counted
    NATS    fix.3.ul.person.a                 counted: our own roles wait for the stream's answer

Whoever reads such a stream leaves out what is early. Both carry the header `Nmqtt-Pub: <QoS>`.

Source: nats-server 2.15.1, `mqtt.go`: `mqttInitiateMsgDelivery`, `mqttPipelineStoreAndPubAck`.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Before the subject of what a PUBACK waits for.
STORED = "$MQTT.msgs."
QOS_HEADER = "Nmqtt-Pub"
_STORED = STORED.encode()
_WAITED_FOR = (b"1", b"2")


def with_stored(subjects: Sequence[str]) -> list[str]:
    """A stream's subjects, and those of what is stored before its PUBACK."""
    return [*subjects, *(STORED + subject for subject in subjects)]


def counts(subject: bytes, qos: bytes) -> bool:
    """Whether a message is to be looked at, by its subject and its header `Nmqtt-Pub` (b"" = none)."""
    return qos not in _WAITED_FOR or subject.startswith(_STORED)


def plain(subject: bytes) -> bytes:
    """The subject as devices' messages have it: without the mark of having been stored."""
    return subject.removeprefix(_STORED)

"""The meaning of a PUBACK: an acknowledged fix is stored in its partition's log.

The server's MQTT side delivers a message of QoS 1 or 2 twice into the account: first on its own subject,
without waiting for its storage, then under `$MQTT.msgs.`. It sends the PUBACK when the stream with this
second subject has stored the message. By default that is the server's own stream `$MQTT_msgs`, and a killed
server may have acknowledged messages that FIX_<p> has not stored yet.

So FIX_<p> and FOREIGN hold the second subject as well, and `$MQTT_msgs` only the rest:

    QoS 0   fix.3.ul.person.a                 counted
    QoS 1   fix.3.ul.person.a                 early copy: not acknowledged yet, not counted
            $MQTT.msgs.fix.3.ul.person.a      stored, then PUBACK: counted
    NATS    fix.3.ul.person.a                 counted: headcount's roles wait for the stream's answer

Readers of these streams skip the early copies. Both copies carry the header `Nmqtt-Pub: <QoS>`.

Source: nats-server 2.15.1, `mqtt.go`: `mqttInitiateMsgDelivery`, `mqttPipelineStoreAndPubAck`.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Prefix of the subject of acknowledged copies.
STORED = "$MQTT.msgs."
QOS_HEADER = "Nmqtt-Pub"
_STORED = STORED.encode()
_ACKNOWLEDGED = (b"1", b"2")


def with_stored(subjects: Sequence[str]) -> list[str]:
    """A stream's subjects, and those of acknowledged copies."""
    return [*subjects, *(STORED + subject for subject in subjects)]


def counts(subject: bytes, qos: bytes) -> bool:
    """Whether a message counts, by its subject and its header `Nmqtt-Pub` (b"" = none)."""
    return qos not in _ACKNOWLEDGED or subject.startswith(_STORED)


def plain(subject: bytes) -> bytes:
    """The subject without the prefix of acknowledged copies."""
    return subject.removeprefix(_STORED)

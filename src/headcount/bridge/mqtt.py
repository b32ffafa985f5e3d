"""An MQTT broker as a source: a persistent session, whose messages are acknowledged when the log has them.

The broker stores messages of QoS 1 while the bridge is away, and sends those again that were not acknowledged.
Its limit on unacknowledged messages (`max_inflight_messages` of Mosquitto) bounds what is in memory here; with
MQTT 5 the bridge sets one, too. Messages of QoS 0 have no such limit, so those above `MAX_WAITING` are dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import suppress

import aiomqtt
import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from headcount.bridge.source import BATCH_SIZE, Reconnecting, SourceMessage, SourceOptions
from headcount.errors import CertificateError

_log = logging.getLogger(__name__)

#: Time for which the broker keeps the session while no bridge is there (MQTT 5; before, it decides itself).
SESSION_EXPIRY_S = 7 * 24 * 3600
#: Unacknowledged messages that the broker may send (MQTT 5).
RECEIVE_MAXIMUM = BATCH_SIZE
#: Messages that wait here; of QoS 0 more are dropped.
MAX_WAITING = 20 * BATCH_SIZE
KEEPALIVE_S = 30
TIMEOUT_S = 10.0
#: First reason code of SUBACK that means failure.
_REFUSED = 128


def source(options: SourceOptions) -> MqttSource:
    """The broker of a URL."""
    return MqttSource(options)


class _Client(aiomqtt.Client):
    """A client that acknowledges messages when it is asked to."""

    dropped = 0

    def acknowledge(self, message: aiomqtt.Message) -> None:
        """Send the PUBACK of a message."""
        self._client.ack(message.mid, message.qos)

    def set_manual(self) -> None:
        """Acknowledge nothing by itself."""
        self._client.manual_ack_set(True)

    def _on_message(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        if message.qos == 0 and len(self.messages) >= MAX_WAITING:
            self.dropped += 1
            return
        super()._on_message(client, userdata, message)


class MqttSource:
    """One broker, with a session of the bridge's name."""

    exclusive = True

    def __init__(self, options: SourceOptions) -> None:
        """Connect to the broker of these options when `batches` is called."""
        self._options = options
        self._v5 = options.settings.mqtt_version == "5"
        self._unacknowledged: list[aiomqtt.Message] = []
        self._client: _Client | None = None
        self.problem = "not connected yet"
        topics = options.topics or options.default_topics
        share = options.settings.share
        self._filters = [f"$share/{share}/{topic}" if share else topic for topic in topics]
        if share:
            _log.warning(
                "with a shared subscription the order of a device's messages is not kept: "
                "late ones are judged out_of_order"
            )

    async def batches(self, stop: asyncio.Event) -> AsyncGenerator[list[SourceMessage], None]:
        """Yield messages until `stop` is set; see `Source`."""
        pauses = Reconnecting()
        while not stop.is_set():
            pauses.begin()
            try:
                async with self._new_client() as self._client:
                    await self._subscribe(self._client)
                    self.problem = ""
                    _log.info("connected to %s", self._options.address)
                    while batch := await self._next(self._client, stop):
                        yield batch
            except (aiomqtt.MqttError, CertificateError, OSError, ValueError) as error:
                self.problem = f"{self._options.address}: {error}"
                _log.warning("%s; connecting again", self.problem)
            finally:
                self._unacknowledged, self._client = [], None
            await pauses.pause(stop)

    async def acknowledge(self) -> None:
        """Send the PUBACKs of the last batch; see `Source`."""
        if self._client is not None:
            for message in self._unacknowledged:
                self._client.acknowledge(message)
        self._unacknowledged = []

    def _new_client(self) -> _Client:
        options, properties = self._options, None
        if self._v5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = SESSION_EXPIRY_S
            properties.ReceiveMaximum = RECEIVE_MAXIMUM
        client = _Client(
            options.url.hostname or "localhost",
            options.url.port or (8883 if options.tls else 1883),
            username=options.user or None,
            password=options.password or None,
            identifier=options.name,
            protocol=aiomqtt.ProtocolVersion.V5 if self._v5 else aiomqtt.ProtocolVersion.V311,
            clean_session=None if self._v5 else False,
            clean_start=False if self._v5 else paho.MQTT_CLEAN_START_FIRST_ONLY,
            properties=properties,
            keepalive=KEEPALIVE_S,
            timeout=TIMEOUT_S,
            tls_context=options.tls() if options.tls else None,
        )
        client.set_manual()
        return client

    async def _subscribe(self, client: _Client) -> None:
        for topic in self._filters:
            if self._v5:
                # with a session that exists, no retained messages are sent
                granted = await client.subscribe(
                    topic, options=SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
                )
            else:
                granted = await client.subscribe(topic, qos=1)
            for code in granted:
                value = code if isinstance(code, int) else code.value
                if value >= _REFUSED:
                    raise aiomqtt.MqttError(f"the broker refuses the subscription to {topic}")
                if value == 0:
                    raise aiomqtt.MqttError(f"the broker grants QoS 0 only for {topic}")

    async def _next(self, client: _Client, stop: asyncio.Event) -> list[SourceMessage]:
        """The next messages; [] at the stop."""
        first = asyncio.create_task(anext(client.messages))
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({first, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                return []
            messages = [first.result()]
        finally:
            for task in (first, stopped):
                task.cancel()
            with suppress(asyncio.CancelledError, aiomqtt.MqttError):
                await first
        while len(messages) < BATCH_SIZE and len(client.messages):
            messages.append(await anext(client.messages))
        self._unacknowledged += [message for message in messages if message.qos]
        dropped, client.dropped = client.dropped, 0
        return [*map(_message, messages), *[SourceMessage("", b"", "overflow")] * dropped]


def _message(message: aiomqtt.Message) -> SourceMessage:
    payload = message.payload if isinstance(message.payload, bytes) else b""
    # stored by the broker before the subscription: not news
    return SourceMessage(str(message.topic), payload, "retained" if message.retain else "")

"""MQTT 3.1.1 with QoS 1: fixes, status, commands and the retained site."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import ssl
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from headcount.device.credentials import DeviceCredentials
from headcount.device.outbox import FixOutbox
from headcount.device.retry_delay import retry_delay_s
from headcount.device.uplink import TIMEOUT_S, LinkCallbacks, LinkStatus, random_share

_log = logging.getLogger(__name__)

KEEPALIVE_S = 60
#: Fixes that wait for PUBACK at the same time.
WINDOW = 20
#: Longest wait for the network; then pings and the end of a pause are checked.
POLL_INTERVAL_S = 1.0


class MqttUplink:
    """A connection with a clean session: the outbox is the session.

    All calls of paho are made by one thread, with a new client for each connection.
    """

    def __init__(
        self,
        credentials: DeviceCredentials,
        tls: ssl.SSLContext | None,
        *,
        websocket: bool = False,
        has_certificate: bool = False,
    ) -> None:
        self.status = LinkStatus()
        self._credentials, self._tls, self._websocket = credentials, tls, websocket
        self._has_certificate = has_certificate
        self._stop, self._is_ended = threading.Event(), False
        self._flush_until_s = 0.0
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        self._thread = threading.Thread(target=self._run, name="headcount device", daemon=True)
        self._outbox: FixOutbox
        self._callbacks: LinkCallbacks
        self._begin()

    def start(self, outbox: FixOutbox, callbacks: LinkCallbacks) -> None:
        """Start the thread."""
        self._outbox, self._callbacks = outbox, callbacks
        self._thread.start()

    def wake(self) -> None:
        """End the wait of the thread."""
        with contextlib.suppress(BlockingIOError):  # it is awake
            os.write(self._wake_writer, b"w")

    def close(self, flush_s: float) -> None:
        """Send what is waiting, publish `offline` and disconnect."""
        self._flush_until_s = time.monotonic() + flush_s
        self._stop.set()
        self.wake()
        self._thread.join(flush_s + 1)
        if not self._thread.is_alive():  # else it waits for a connection, and ends after that
            os.close(self._wake_reader)
            os.close(self._wake_writer)

    def _begin(self) -> None:
        """Forget what was sent in the last connection."""
        self._sent: dict[int, int] = {}  # message id → number of the fix
        self._acknowledged: set[int] = set()
        self._last_sent = 0
        self._offline_id: int | None = None
        self._is_proven = False  # the broker has acknowledged a message

    def _run(self) -> None:
        failures = 0
        while not self._is_over():
            self._begin()
            try:
                self._connection()
            except Exception as error:  # noqa: BLE001  # a device has no operator: it tries again after any failure
                self._fail(str(error) or type(error).__name__)
            self.status.connected = False
            failures = 0 if self._is_proven else failures + 1
            until_s = time.monotonic() + retry_delay_s(max(0, failures - 1), random_share())
            ending = self._stop.is_set()
            while (wait_s := until_s - time.monotonic()) > 0 and not self._is_over():
                if self._stop.is_set() and not ending:
                    break  # the last attempt
                self._wait([], [], min(wait_s, POLL_INTERVAL_S))

    def _is_over(self) -> bool:
        """Whether to end without another connection."""
        if not self._stop.is_set():
            return False
        return self._is_ended or not len(self._outbox) or time.monotonic() >= self._flush_until_s

    def _client(self) -> mqtt.Client:
        account = self._credentials
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            account.device,
            protocol=mqtt.MQTTv311,
            transport="websockets" if self._websocket else "tcp",
        )
        client.connect_timeout = TIMEOUT_S
        client.max_inflight_messages_set(0)  # the window is ours
        if account.secret or self._has_certificate:
            client.username_pw_set(account.device, account.secret or None)
        if self._tls:
            client.tls_set_context(self._tls)
        client.will_set(f"{account.topic}/status", b"offline", qos=1)
        client.on_connect, client.on_message = self._on_connect, self._on_message
        client.on_publish, client.on_disconnect = self._on_publish, self._on_disconnect
        return client

    def _connection(self) -> None:
        """Run one connection to its end."""
        client = self._client()
        host, port = self._credentials.host, self._credentials.port
        if self._websocket:
            url = urlsplit(self._credentials.websocket)
            host, port = url.hostname or host, url.port or (443 if self._tls else 80)
            client.ws_set_options(url.path or "/mqtt")
        client.connect(host, port, KEEPALIVE_S)
        accepted_by_s = time.monotonic() + TIMEOUT_S
        while (sock := client.socket()) is not None:
            if self.status.connected:
                self._send(client)
            elif time.monotonic() > accepted_by_s:
                raise TimeoutError("the broker does not answer")
            if self._stop.is_set() and self._is_finished(client):
                if self.status.connected and self._offline_id is None:
                    client.publish(f"{self._credentials.topic}/status", b"offline", qos=1)
                client.disconnect()
                client.loop_write()
                self._is_ended = True
                return
            pending = getattr(sock, "pending", None)
            wait_s = 0.0 if pending and pending() else POLL_INTERVAL_S
            if self._stop.is_set():
                wait_s = min(wait_s, max(0.0, self._flush_until_s - time.monotonic()))
            readable, writable = self._wait([sock], [sock] if client.want_write() else [], wait_s)
            if readable or (pending and pending()):
                client.loop_read()
            if writable:
                client.loop_write()
            client.loop_misc()
            if self._acknowledged:
                self._outbox.acknowledge(self._acknowledged)
                self.status.acknowledged += len(self._acknowledged)
                self._acknowledged = set()

    def _send(self, client: mqtt.Client) -> None:
        if not self._callbacks.may_send():
            return
        topic = f"{self._credentials.topic}/fix"
        for fix in self._outbox.after(self._last_sent, WINDOW - len(self._sent)):
            self._sent[client.publish(topic, fix.payload, qos=1).mid] = fix.number
            self._last_sent = fix.number

    def _is_finished(self, client: mqtt.Client) -> bool:
        """Whether a connection that is to end has nothing more to send; publishes `offline` as its last message."""
        if time.monotonic() >= self._flush_until_s:
            return True
        if self._sent or len(self._outbox):
            return False
        if not self.status.connected:
            return True
        if self._offline_id is None:
            self._offline_id = client.publish(f"{self._credentials.topic}/status", b"offline", qos=1).mid
        return self._offline_id == -1

    def _wait(self, readers: list[Any], writers: list[Any], wait_s: float) -> tuple[list[Any], list[Any]]:
        readable, writable, _ = select.select([*readers, self._wake_reader], writers, [], wait_s)
        if self._wake_reader in readable:
            readable.remove(self._wake_reader)
            os.read(self._wake_reader, 4096)
        return readable, writable

    def _on_connect(self, client: mqtt.Client, _: object, __: object, reason: Any, ___: object) -> None:
        if reason.is_failure:
            self._fail(f"the broker refuses the connection: {reason}")
            return
        self.status.connected, self.status.problem = True, ""
        account = self._credentials
        client.subscribe([(f"headcount/{account.site}/site", 1), (f"{account.topic}/cmd", 1)])
        client.publish(f"{account.topic}/status", b"online", qos=1)
        _log.info("connected to %s:%d", account.host, account.port)

    def _on_message(self, client: mqtt.Client, _: object, message: mqtt.MQTTMessage) -> None:
        if message.topic.endswith("/site"):
            self._callbacks.on_site(bytes(message.payload))
        elif (answer := self._callbacks.on_command(bytes(message.payload))) is not None:
            client.publish(f"{self._credentials.topic}/ack", answer, qos=1)

    def _on_publish(self, _: object, __: object, message_id: int, *___: object) -> None:
        self._is_proven = True
        if (number := self._sent.pop(message_id, None)) is not None:
            self._acknowledged.add(number)
        if message_id == self._offline_id:
            self._offline_id = -1

    def _on_disconnect(self, _: object, __: object, ___: object, reason: Any, ____: object) -> None:
        if self.status.connected and not self._stop.is_set():
            self._fail(f"the connection is lost: {reason}")
        self.status.connected = False

    def _fail(self, problem: str) -> None:
        if problem != self.status.problem:
            _log.warning("%s:%d: %s", self._credentials.host, self._credentials.port, problem)
        self.status.problem = problem

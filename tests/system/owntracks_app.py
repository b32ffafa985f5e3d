"""The app OwnTracks, as far as a server sees it: its settings, queue, retry rules and commands.

Android `MessageProcessor.kt`, `HttpMessageProcessorEndpoint.kt`; iOS `Connection.m`: messages are sent one by one,
oldest first. By HTTP, both repeat a message after 5xx or without an answer; after 4xx, iOS drops it, Android
repeats it. Pauses are shorter here than the apps' second to two minutes.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from typing import Any, Literal, Self

import httpx
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from headcount.decoders.payload_keys import decrypt, encrypt
from waiting import LIMIT_S, wait_until

PAUSE_S = 0.2
Platform = Literal["android", "ios"]


class App:
    """A phone that was set up with the settings of a link."""

    def __init__(self, settings: dict[str, Any], platform: Platform = "android") -> None:
        """Import an .otrc file."""
        self.settings, self.platform = settings, platform
        self.commands: list[dict[str, Any]] = []
        self.configuration: dict[str, Any] = {}
        self.regions: dict[int, dict[str, Any]] = {}
        self.dropped = 0
        self.requests = 0

    def sealed(self, message: Any) -> bytes:
        """A message as it is sent."""
        payload = json.dumps(message).encode()
        key = self.settings.get("encryptionKey", "")
        return encrypt(payload, key) if key else payload

    def execute(self, payload: bytes) -> int:
        """Execute the commands in a message or a reply; return how many locations they request."""
        if not payload:
            return 0
        value = json.loads(payload)
        if isinstance(value, dict) and value["_type"] == "encrypted":
            value = json.loads(decrypt(value["data"], self.settings["encryptionKey"]))
        requested = 0
        for message in value if isinstance(value, list) else [value]:
            assert message["_type"] == "cmd"
            if not self.settings["cmd"]:
                continue
            self.commands.append(message)
            match message["action"]:
                case "reportLocation":
                    requested += 1
                case "setConfiguration":
                    # iOS imports no configuration without its mode
                    assert message["configuration"]["mode"] == self.settings["mode"]
                    assert self.settings["remoteConfiguration"]
                    self.configuration |= message["configuration"]
                case "setWaypoints":
                    for waypoint in message["waypoints"]["waypoints"]:
                        self.regions[waypoint["tst"]] = waypoint
                case "clearWaypoints":
                    self.regions.clear()
        return requested

    def actions(self) -> list[str]:
        """The actions of all commands so far."""
        return [command["action"] for command in self.commands]


class HttpApp(App):
    """The app in HTTP mode."""

    def send(self, messages: list[dict[str, Any]], response: dict[str, Any] | None = None) -> None:
        """Send messages oldest first; answer requested locations with `response`."""
        queue = list(messages)
        deadline = time.monotonic() + LIMIT_S
        headers = {"x-limit-u": self.settings["username"], "x-limit-d": self.settings["deviceId"]}
        auth = (self.settings["username"], self.settings["password"])
        with httpx.Client(trust_env=False, timeout=LIMIT_S, headers=headers, auth=auth) as http:
            while queue:
                assert time.monotonic() < deadline, f"{len(queue)} messages are not sent"
                status, reply = self._post(http, {**queue[0], "topic": "owntracks/http/phone"})
                if 200 <= status < 300:
                    queue.pop(0)
                    if self.execute(reply) and response is not None:
                        queue.append(response | {"t": "r", "created_at": int(time.time())})
                elif 400 <= status < 500 and self.platform == "ios":
                    queue.pop(0)
                    self.dropped += 1
                else:
                    time.sleep(PAUSE_S)

    def _post(self, http: httpx.Client, message: dict[str, Any]) -> tuple[int, bytes]:
        self.requests += 1
        with suppress(httpx.TransportError):
            answer = http.post(
                self.settings["url"],
                content=self.sealed(message),
                headers={"content-type": "application/json"},
            )
            return answer.status_code, answer.content
        return 0, b""


class MqttApp(App):
    """The app in MQTT mode, connected within a `with` block."""

    def __init__(
        self,
        settings: dict[str, Any],
        response: dict[str, Any] | None = None,
        platform: Platform = "android",
    ) -> None:
        """Answer requested locations with `response`."""
        super().__init__(settings, platform)
        self._response = response
        self._subscribed = threading.Event()
        self.refused: list[str] = []
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, settings["clientId"], protocol=paho.MQTTv311, clean_session=True
        )
        self._client.username_pw_set(settings["username"], settings["password"])
        will = {"_type": "lwt", "tst": int(time.time())}
        # only the Android app encrypts its last will
        payload = self.sealed(will) if platform == "android" else json.dumps(will).encode()
        self._client.will_set(settings["pubTopicBase"], payload, qos=settings["pubQos"])
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)

    def __enter__(self) -> Self:
        self._client.connect_async(self.settings["host"], self.settings["port"])
        self._client.loop_start()
        if self.settings["sub"]:
            assert self._subscribed.wait(LIMIT_S), "the app is not connected"
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, message: dict[str, Any], subtopic: str = "") -> None:
        """Publish a message, and wait until the broker has acknowledged it; repeat it after a disconnect."""
        topic = self.settings["pubTopicBase"] + subtopic
        wait_until(self._client.is_connected, "the app is connected")
        info = self._client.publish(topic, self.sealed(message), self.settings["pubQos"])
        info.wait_for_publish(LIMIT_S)
        assert info.is_published(), "the broker does not acknowledge"

    def _on_connect(self, client: paho.Client, *_: object) -> None:
        if self.settings["sub"]:
            client.subscribe(self.settings["subTopic"], self.settings["subQos"])

    def _on_subscribe(self, *arguments: Any) -> None:
        assert not any(code.is_failure for code in arguments[3]), "the subscription is refused"
        self._subscribed.set()

    def _on_message(self, client: paho.Client, _: object, message: paho.MQTTMessage) -> None:
        if self.execute(bytes(message.payload)) and self._response is not None:
            response = self._response | {"t": "r", "created_at": int(time.time())}
            client.publish(self.settings["pubTopicBase"], self.sealed(response), self.settings["pubQos"])

"""An MQTT subscriber with paho that only decodes: what any Python program has to do, and no more.

SIGTERM ends it; it prints the number of messages and, of vehicles, when each was sent and its delay.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion


def main() -> None:
    """Subscribe to all fixes at the port of the first argument until SIGTERM."""
    received, delays = 0, []

    def receive(_client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
        nonlocal received
        received += 1
        sent_s = json.loads(message.payload)["tst"]
        if "/vehicle/" in message.topic:
            delays.append((sent_s, time.time() - sent_s))

    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.on_message = receive

    def subscribe(*_: Any) -> None:
        client.subscribe("headcount/#")

    def ready(*_: Any) -> None:
        print("ready", flush=True)

    client.on_connect, client.on_subscribe = subscribe, ready
    client.connect("127.0.0.1", int(sys.argv[1]))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with contextlib.suppress(SystemExit):
        client.loop_forever()
    json.dump({"received": received, "delays": delays}, sys.stdout)
    sys.stdout.flush()


if __name__ == "__main__":
    main()

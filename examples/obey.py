"""Simulate a phone that obeys commands: `python examples/obey.py [127.0.0.1] [1883] [ID SECRET]`."""

import json
import sys
import threading
import time
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

host, port, device, secret = sys.argv[1:] + ["127.0.0.1", "1883", "example-phone", ""][len(sys.argv) - 1 :]
topic = f"headcount/ul/person/{device}"
now = threading.Event()
state = {"interval_s": 10.0, "until": 0.0}
answers: dict[str, dict[str, Any]] = {}  # a repeated command gets its answer again, and is not repeated


def obey(command: dict[str, Any]) -> dict[str, Any]:
    """Execute a command and return the answer."""
    print("command", command["command"], flush=True)
    if command["command"] == "message":
        return {"id": command["id"], "ok": False, "text": "no screen"}
    state.update({name: command[name] for name in state if name in command})
    now.set()
    return {"id": command["id"], "ok": True}


def on_message(client: mqtt.Client, _: None, message: mqtt.MQTTMessage) -> None:
    """Answer a command, unless it has expired."""
    command = json.loads(message.payload)
    if command["expires"] > time.time():
        answers[command["id"]] = answers.get(command["id"]) or obey(command)
        client.publish(f"{topic}/ack", json.dumps(answers[command["id"]]), qos=1)


client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=device, protocol=mqtt.MQTTv311)
if secret:
    client.username_pw_set(device, secret)
client.on_connect = lambda client, *_: client.subscribe(f"{topic}/cmd", qos=1)
client.on_message = on_message
client.reconnect_delay_set(1, 5)
client.connect(host, int(port))
client.loop_start()
while True:
    if time.time() >= state["until"]:
        fix = {"tst": int(time.time()), "lat": 52.67345, "lon": -8.57312, "acc": 8}
        client.publish(f"{topic}/fix", json.dumps(fix), qos=1)  # queued while disconnected
    now.wait(state["interval_s"])
    now.clear()

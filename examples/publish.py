"""Simulate a phone in the library: `python examples/publish.py [127.0.0.1 [1883 [ID SECRET [CA]]]]`."""

import json
import sys
import time

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

host, port, device, secret, ca = sys.argv[1:] + ["127.0.0.1", "1883", "phone", "", ""][len(sys.argv) - 1 :]
topic = f"headcount/ul/person/{device}"
client = mqtt.Client(CallbackAPIVersion.VERSION2, device if secret else "", protocol=mqtt.MQTTv311)
if secret:
    client.username_pw_set(device, secret)
if ca:
    client.tls_set(ca)
client.will_set(f"{topic}/status", "offline", qos=1)
client.connect(host, int(port))
client.loop_start()
client.publish(f"{topic}/status", "online", qos=1)
while True:
    fix = {"tst": int(time.time()), "lat": 52.67345, "lon": -8.57312, "acc": 8}
    client.publish(f"{topic}/fix", json.dumps(fix), qos=1).wait_for_publish(10)
    print("sent", fix, flush=True)
    time.sleep(10)

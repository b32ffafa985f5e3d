"""A phone that waits in the library: `python examples/publish.py [127.0.0.1] [1883]`."""

import json
import sys
import time

import paho.mqtt.client as mqtt

host = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1"
port = int(sys.argv[2]) if len(sys.argv) > 2 else 1883
topic = "headcount/ul/person/example-phone"
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
client.will_set(f"{topic}/status", "offline", qos=1)
client.connect(host, port)
client.loop_start()
client.publish(f"{topic}/status", "online", qos=1)
while True:
    fix = {"tst": int(time.time()), "lat": 52.67345, "lon": -8.57312, "acc": 8}
    client.publish(f"{topic}/fix", json.dumps(fix), qos=1).wait_for_publish(10)
    print("sent", fix, flush=True)
    time.sleep(10)

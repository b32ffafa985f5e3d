"""A load generator that costs little: encoded beforehand, sent by the clock over four MQTT connections of QoS 0.

One person in ten walks, the others stay where they are, within their accuracy.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import time

import numpy as np

from headcount.counting.fix_columns import F8, I8
from headcount.lab.figures.bench_fixes import degrees
from headcount.lab.load import mqtt_packets

CONNECTIONS = 4
#: Between two times at which messages are sent.
SLOT_S = 0.005
WALKING, SPEED_MPS, NOISE_M = 0.1, 1.3, 3.0
TOPIC = "headcount/campus/person/d%d/fix"
PAYLOAD = b'{"_type":"location","tst":%.3f,"lat":%.6f,"lon":%.6f,"acc":%d}'


def positions(
    device: I8, after_s: F8, side_m: float, devices: int, rng: np.random.Generator
) -> tuple[F8, F8]:
    """Reported positions in metres at times after the start; those of a device are on the same way in every run."""
    fixed = np.random.default_rng(1)
    half_m = side_m / 2
    start_m = fixed.uniform(-half_m, half_m, (2, devices))
    heading = fixed.uniform(0, 2 * np.pi, devices)
    speed_mps = np.where(np.arange(devices) % round(1 / WALKING) == 0, SPEED_MPS, 0.0)
    step_m = np.stack([np.cos(heading), np.sin(heading)]) * speed_mps
    # walkers turn back at the edges of the campus
    way_m = (start_m[:, device] + step_m[:, device] * after_s + half_m) % (2 * side_m)
    turned_m = np.where(way_m > side_m, 2 * side_m - way_m, way_m) - half_m
    x_m, y_m = turned_m + rng.normal(0, NOISE_M, turned_m.shape)
    return x_m, y_m


def encoded(
    rate: int, seconds: float, devices: int, side_m: float, offset_s: float, t0_s: float
) -> list[list[bytes]]:
    """For each slot, the bytes for each connection."""
    count = round(rate * seconds)
    number = np.arange(count)
    device = np.random.default_rng(2).permutation(devices)[number % devices]
    after_s = number / rate
    x_m, y_m = positions(
        device, after_s + offset_s, side_m, devices, np.random.default_rng(int(offset_s) + 3)
    )
    lat_deg, lon_deg = degrees(x_m, y_m)
    slots: list[list[bytearray]] = [
        [bytearray() for _ in range(CONNECTIONS)] for _ in range(round(seconds / SLOT_S) + 1)
    ]
    topics = [(TOPIC % one).encode() for one in range(devices)]
    columns = zip(device.tolist(), after_s.tolist(), lat_deg.tolist(), lon_deg.tolist(), strict=True)
    for one, due_s, lat, lon in columns:
        body = PAYLOAD % (t0_s + due_s, lat, lon, 5 + one % 10)
        slots[int(due_s / SLOT_S)][one % CONNECTIONS] += mqtt_packets.publish(topics[one], body)
    return [[bytes(part) for part in slot] for slot in slots]


def connected(port: int, name: str) -> socket.socket:
    """An MQTT connection, accepted."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(mqtt_packets.connect(name, 0))
    if sock.recv(4) != b"\x20\x02\x00\x00":
        raise SystemExit("the MQTT connection was refused")
    return sock


def main() -> None:
    """Encode, print a line, send, and print what sending took as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("rate", type=int, help="fixes per second")
    parser.add_argument("seconds", type=float)
    parser.add_argument("--devices", type=int, default=25_000)
    parser.add_argument("--side-m", type=float, required=True)
    parser.add_argument("--offset-s", type=float, default=0.0, help="of the walk, where the run before ended")
    options = parser.parse_args()
    slots = encoded(
        options.rate, options.seconds, options.devices, options.side_m, options.offset_s, time.time()
    )
    sockets = [connected(options.port, f"load-{number}") for number in range(CONNECTIONS)]
    print("ready", flush=True)
    began_s, cpu_s = time.monotonic(), time.process_time()
    for number, slot in enumerate(slots):
        time.sleep(max(0.0, began_s + (number + 1) * SLOT_S - time.monotonic()))
        for sock, part in zip(sockets, slot, strict=True):
            if part:
                sock.sendall(part)
    took_s = time.monotonic() - began_s
    for sock in sockets:
        sock.sendall(mqtt_packets.DISCONNECT)
    result = {"fixes": round(options.rate * options.seconds), "seconds": took_s}
    json.dump(result | {"cpu_s": time.process_time() - cpu_s}, sys.stdout)
    sys.stdout.flush()


if __name__ == "__main__":
    main()

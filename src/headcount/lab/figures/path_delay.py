"""Cost of a fix on one core and in memory: messages → columns → engine → counts and history rows.

It excludes the broker and the reader, see pipeline_throughput. Times are CPU time of this process, which a busy
machine hardly changes.
"""

from __future__ import annotations

import argparse
import gc
import time

import numpy as np

from headcount.counting.fix_columns import F8
from headcount.counting.site_versions import Sites, only
from headcount.devices.pseudonyms import Pseudonyms
from headcount.lab.figures.bench_fixes import campus, degrees, side
from headcount.messages.topics import partition_of
from headcount.messaging.raw_batch import RawBatch
from headcount.worker.counter import Counter
from headcount.worker.site_counter import BATCH_ROWS

PARTITIONS = 16
#: Time of the log between two batches of a partition.
BATCH_INTERVAL_S = 1.0
#: Fixes before the measurement, in which devices are new and zones learn their transitions.
WARM_FIXES = 2_000_000


class TimedLog:
    """Messages of walking people: one delivery of `BATCH_ROWS` fixes per partition at a time."""

    def __init__(self, site: str, side_m: float, devices: int, rng: np.random.Generator) -> None:
        """Devices `d0` to `d<devices - 1>`, each in its partition."""
        self._site, self._rng = site.encode(), rng
        self._x_m: F8 = rng.uniform(-side_m / 2, side_m / 2, devices)
        self._y_m: F8 = rng.uniform(-side_m / 2, side_m / 2, devices)
        number = np.array([partition_of(site, f"d{i}", PARTITIONS) for i in range(devices)])
        self._members = [np.flatnonzero(number == p) for p in range(PARTITIONS)]
        self._seq = [0] * PARTITIONS
        self._now_s = 1.8e9

    def second(self) -> list[RawBatch]:
        """The next `BATCH_ROWS` fixes of every partition."""
        self._now_s += BATCH_INTERVAL_S
        return [self._delivery(p) for p in range(PARTITIONS)]

    def _delivery(self, partition: int) -> RawBatch:
        moved = self._rng.choice(self._members[partition], BATCH_ROWS)
        self._x_m[moved] += self._rng.normal(0, 3, BATCH_ROWS)
        self._y_m[moved] += self._rng.normal(0, 3, BATCH_ROWS)
        lat_deg, lon_deg = degrees(self._x_m[moved], self._y_m[moved])
        t_s = self._now_s + np.arange(BATCH_ROWS) * (BATCH_INTERVAL_S / BATCH_ROWS)
        columns = zip(moved.tolist(), t_s.tolist(), lat_deg.tolist(), lon_deg.tolist(), strict=True)
        subject = b"fix.%d.%s.person.d" % (partition, self._site)
        subjects, payloads = [], []
        for device, t, lat, lon in columns:
            subjects.append(subject + b"%d" % device)
            payloads.append(
                b'{"_type":"location","tst":%.3f,"lat":%.6f,"lon":%.6f,"acc":%d}'
                % (t, lat, lon, 5 + device % 10)
            )
        first = self._seq[partition] + 1
        self._seq[partition] += BATCH_ROWS
        received_ns = ((t_s + 0.05) * 1e9).astype(np.int64)
        return RawBatch(partition, subjects, payloads, first + np.arange(BATCH_ROWS), received_ns)


def measure(zones: int, devices: int, seed: int, fixes: int) -> float:
    """Nanoseconds per fix, including counts once per second of the log and partition."""
    site = campus(zones, seed)
    counter = Counter(Sites([only(site)]), Pseudonyms({}), PARTITIONS)
    parts = [counter.partition(number, 1) for number in range(PARTITIONS)]
    log = TimedLog(site.id, side(zones), devices, np.random.default_rng(seed))
    warm, timed, took_s = max(WARM_FIXES, 3 * devices), 0, 0.0
    while timed < fixes:
        deliveries = log.second()
        began = time.process_time()
        while deliveries:
            delivery = deliveries.pop(0)
            part = parts[delivery.partition]
            part.take(delivery)
            counter.work([part], publish=False)
            part.history()
            del delivery
        if warm > 0:
            warm -= PARTITIONS * BATCH_ROWS
        else:
            took_s += time.process_time() - began
            timed += PARTITIONS * BATCH_ROWS
    return took_s / timed * 1e9


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fixes", type=int, default=2_000_000, help="measured per line")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, nargs=2, metavar=("ZONES", "DEVICES"))
    options = parser.parse_args()
    gc.set_threshold(200_000, 20, 100)  # as the role `count` has it
    print(f"messages to history rows, one core, {PARTITIONS} partitions, seed", options.seed)
    print(f"{'zones':>6} {'devices':>9} {'fixes/s':>12} {'ns/fix':>9}")
    by_devices = [(100, devices) for devices in (1_000, 10_000, 100_000, 1_000_000)]
    by_zones = [(10, 100_000), (1_000, 100_000)]
    cases = [tuple(options.only)] if options.only else by_devices + by_zones
    cost = {}
    for zones, devices in cases:
        cost[zones, devices] = measure(zones, devices, options.seed, options.fixes)
        print(f"{zones:>6} {devices:>9} {1e9 / cost[zones, devices]:>12,.0f} {cost[zones, devices]:>9.0f}")
    if not options.only:
        print(f"1 000 000 devices cost {cost[100, 1_000_000] / cost[100, 1_000]:.2f} times as much as 1 000")
        print(f"1 000 zones cost {cost[1_000, 100_000] / cost[10, 100_000]:.2f} times as much as 10")


if __name__ == "__main__":
    main()

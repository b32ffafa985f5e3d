"""Which worker is to own each partition: a pure function of the workers that are alive and the owners.

Every worker computes it from the same tables and acts on its own part; there is no leader. Loads differ by
one at most. A partition stays with its owner unless that is gone or owns more than its share: a worker that
joins acquires its share and nothing else moves, and of a worker that leaves only its own partitions move.
Otherwise the highest random weight decides (`messaging/rendezvous.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from headcount.messaging.rendezvous import divide, rooms, weight


def assign(partitions: int, workers: Collection[str], owners: Mapping[int, str]) -> dict[int, str]:
    """The worker that is to own each partition.

    Args:
        partitions: P; their numbers are 0 to `partitions - 1`.
        workers: that are alive.
        owners: partition → current owner; owners that aren't alive are ignored.

    Returns:
        partition → worker, for every partition; empty if no worker is alive.
    """
    if not workers:
        return {}
    held: dict[str, list[int]] = {worker: [] for worker in sorted(workers)}
    for partition in range(partitions):
        owner = owners.get(partition)
        if owner is not None and owner in held:
            held[owner].append(partition)
    # the workers with the most partitions may keep one more where the shares aren't even
    room = rooms(partitions, sorted(held, key=lambda worker: (-len(held[worker]), worker)))
    wanted: dict[int, str] = {}
    for worker, own in held.items():
        keep = sorted(own, key=lambda partition: -weight(partition, worker))[: room[worker]]
        wanted |= dict.fromkeys(keep, worker)
        room[worker] -= len(keep)
    return wanted | divide([partition for partition in range(partitions) if partition not in wanted], room)

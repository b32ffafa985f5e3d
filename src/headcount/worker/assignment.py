"""Which worker counts which partition: a pure function of who lives and who has what.

Every worker computes it for itself from the same two tables and acts on its own part; there is no
leader. Loads differ by one at most. A partition stays where it is unless its worker is gone or has
more than its share, so a worker that joins takes its share and nothing else moves, and of a worker
that leaves only its own partitions move. Where there is a choice, the highest random weight
decides (rendezvous hashing; Thaler and Ravishankar 1998), which all workers compute alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping


def weight(partition: int, worker: str) -> int:
    """How much a partition would like to be with a worker: a hash that all compute alike."""
    digest = hashlib.blake2b(f"{partition}|{worker}".encode(), digest_size=8).digest()
    return int.from_bytes(digest)


def assign(partitions: int, workers: Collection[str], owners: Mapping[int, str]) -> dict[int, str]:
    """Who should have each partition.

    Args:
        partitions: how many there are: 0 to `partitions - 1`.
        workers: who lives.
        owners: who has which partition now; entries of workers that don't live are ignored.

    Returns:
        partition → worker, for every partition; empty if nobody lives.
    """
    if not workers:
        return {}
    held: dict[str, list[int]] = {worker: [] for worker in sorted(workers)}
    for partition in range(partitions):
        owner = owners.get(partition)
        if owner is not None and owner in held:
            held[owner].append(partition)
    share, over = divmod(partitions, len(held))
    # those that have most may keep one more where the shares aren't even
    by_load = sorted(held, key=lambda worker: (-len(held[worker]), worker))
    room = {worker: share + (rank < over) for rank, worker in enumerate(by_load)}
    wanted: dict[int, str] = {}
    for worker, own in held.items():
        keep = sorted(own, key=lambda partition: -weight(partition, worker))[: room[worker]]
        wanted |= dict.fromkeys(keep, worker)
        room[worker] -= len(keep)
    open_ = [partition for partition in range(partitions) if partition not in wanted]
    choices = sorted(
        (
            (weight(partition, worker), partition, worker)
            for partition in open_
            for worker in held
            if room[worker]
        ),
        reverse=True,
    )
    for _, partition, worker in choices:
        if partition not in wanted and room[worker]:
            wanted[partition] = worker
            room[worker] -= 1
    return wanted

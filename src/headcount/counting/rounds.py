"""Cut a batch into rounds in which each device has at most one row."""

from __future__ import annotations

import numpy as np

from headcount.counting.fix_columns import I8

#: Rounds of a batch before the remaining rows are sorted: many fixes of one device must not take quadratic time.
PEELED_ROUNDS = 8


def rounds_of(device: I8, rows: I8) -> list[I8]:
    """Rows cut into rounds: the k-th round has each device's k-th row, in the order of the rows."""
    rounds: list[I8] = []
    if not len(rows):
        return rounds
    slots = device[rows]
    first = np.empty(int(slots.max()) + 1, dtype=np.int64)
    for _ in range(PEELED_ROUNDS):
        number = np.arange(len(rows))
        # written in reverse order, so each slot keeps its first row
        first[slots[::-1]] = number[::-1]
        now = first[slots] == number
        if now.all():
            return [*rounds, rows]
        rounds.append(rows[now])
        rows, slots = rows[~now], slots[~now]
    # a few devices sent much more than the others: split the remaining rows in one step
    order = np.argsort(slots, kind="stable")
    sorted_slots = slots[order]
    start = np.flatnonzero(np.diff(sorted_slots, prepend=-1))
    length = np.diff(start, append=len(rows))
    rank = np.arange(len(rows)) - np.repeat(start, length)
    by_rank = np.argsort(rank, kind="stable")
    cuts = np.cumsum(np.bincount(rank))[:-1]
    return rounds + [rows[part] for part in np.split(order[by_rank], cuts)]

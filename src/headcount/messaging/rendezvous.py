"""Rendezvous hashing: processes divide work without an election (Thaler and Ravishankar 1998). Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping


def weight(item: int, member: str) -> int:
    """The weight of a member for an item, the same wherever it is computed."""
    digest = hashlib.blake2b(f"{item}|{member}".encode(), digest_size=8).digest()
    return int.from_bytes(digest)


def divide(items: Collection[int], room: Mapping[str, int]) -> dict[int, str]:
    """Give each item to the member with the highest weight that has room left."""
    left, found = dict(room), dict[int, str]()
    choices = ((weight(item, member), item, member) for item in items for member in left if left[member])
    for _, item, member in sorted(choices, reverse=True):
        if item not in found and left[member]:
            found[item] = member
            left[member] -= 1
    return found


def rooms(items: int, members: Collection[str]) -> dict[str, int]:
    """The number of items of each member, in the order of `members`: they differ by one at most."""
    least, over = divmod(items, len(members))
    return {member: least + (rank < over) for rank, member in enumerate(members)}

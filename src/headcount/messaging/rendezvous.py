"""Rendezvous hashing: processes divide work without an election (Thaler and Ravishankar 1998). Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection


def weight(item: int | str, member: str) -> int:
    """The weight of a member for an item, the same wherever it is computed."""
    digest = hashlib.blake2b(f"{item}|{member}".encode(), digest_size=8).digest()
    return int.from_bytes(digest)


def share(items: Collection[int], members: Collection[str], member: str) -> set[int]:
    """The items of which a member has the highest weight among all members and itself."""
    everyone = {*members, member}
    return {item for item in items if max(everyone, key=lambda each: (weight(item, each), each)) == member}

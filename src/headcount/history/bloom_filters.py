"""Bloom filters of Parquet files: whether a row group may hold a name. Pure.

The split-block filter of https://parquet.apache.org/docs/file-format/bloomfilter/: a name sets one bit in each of
the eight words of one block, by its hash (XXH64).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headcount.counting.fix_columns import B1, I8

_SALT = (0x47B6137B, 0x44974D91, 0x8824AD5B, 0xA2B7289D, 0x705495C7, 0x2DF1424B, 0x9EFC4947, 0x5C6BFB31)
_PRIME = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)
_MASK = 2**64 - 1


class BloomFilters:
    """The filters of n row groups."""

    def __init__(self, stored: Sequence[bytes]) -> None:
        """`stored`: of each, a header (less than 32 bytes) and the filter, whose size is a power of two."""
        self._number = len(stored)
        sizes = np.array([1 << (len(each).bit_length() - 1) for each in stored])
        self._by_size: list[tuple[I8, NDArray[np.uint32]]] = []
        for size in np.unique(sizes).tolist():
            groups = np.flatnonzero(sizes == size)
            bits = b"".join(stored[group][-size:] for group in groups.tolist())
            self._by_size.append((groups, np.frombuffer(bits, "<u4").reshape(len(groups), -1, 8)))

    def may_hold(self, name: bytes) -> B1:
        """Which may hold a name of less than 32 bytes; false for those that certainly do not. Shape [n]."""
        key = xxh64(name)
        low = key & 0xFFFFFFFF
        wanted = np.array([1 << ((low * salt & 0xFFFFFFFF) >> 27) for salt in _SALT], np.uint32)
        found = np.zeros(self._number, np.bool_)
        for groups, words in self._by_size:
            block = ((key >> 32) * words.shape[1]) >> 32
            found[groups] = (words[:, block] & wanted == wanted).all(axis=1)
        return found


def xxh64(data: bytes) -> int:
    """The hash XXH64 with seed 0 of less than 32 bytes, a multiple of 8."""
    one, two, three, four, five = _PRIME
    state = five + len(data)
    for start in range(0, len(data), 8):
        lane = int.from_bytes(data[start : start + 8], "little")
        state ^= _rotated(lane * two & _MASK, 31) * one & _MASK
        state = (_rotated(state, 27) * one + four) & _MASK
    for shift, prime in ((33, two), (29, three)):
        state = (state ^ state >> shift) * prime & _MASK
    return state ^ state >> 32


def _rotated(value: int, bits: int) -> int:
    return (value << bits | value >> 64 - bits) & _MASK

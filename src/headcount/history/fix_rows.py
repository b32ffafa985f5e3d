"""Stored fixes as numpy columns, in exact integers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headcount.counting.fix_columns import B1, I8, U1, U8
from headcount.history.cursors import Key
from headcount.messages.fixes import VERDICTS
from headcount.messages.topics import KINDS

#: Stored positions are multiples of this part of a degree.
STEPS_PER_DEG = 10_000_000
COLUMNS = ("t", "lat", "lon", "device", "kind", "verdict", "acc", "partition", "seq")


@dataclass(frozen=True, slots=True)
class FixRows:
    """n fixes; the positions are multiples of 1 / STEPS_PER_DEG degrees."""

    t_us: I8
    lat: I8
    lon: I8
    device: U8  # the pseudonym's digits as a number
    kind: U1  # index into KINDS
    verdict: U1  # index into VERDICTS
    acc: NDArray[np.float32]
    partition: I8
    seq: I8

    def __len__(self) -> int:
        return len(self.t_us)

    def take(self, which: B1 | I8 | slice) -> FixRows:
        """Some of the rows, by a mask or by indices."""
        return FixRows(*(getattr(self, each.name)[which] for each in fields(self)))

    def after(self, key: Key) -> B1:
        """Which rows come after a place in the order of answers."""
        is_later: B1 = np.zeros(len(self), np.bool_)
        is_same: B1 = np.ones(len(self), np.bool_)
        columns: tuple[NDArray[Any], ...] = (-self.t_us, self.kind, self.lat, self.lon, self.device)
        for column, value in zip(columns, key, strict=True):
            is_later |= is_same & (column > value)
            is_same &= column == value
        return is_later

    def newest_first(self, *, is_one_device: bool = False) -> FixRows:
        """The rows in the order of answers, each fix once: of copies the row that was received first.

        Args:
            is_one_device: pseudonyms of different days are one device.
        """
        of_device = () if is_one_device else (self.device,)
        keys = (self.seq, self.partition, *of_device, self.lon, self.lat, self.kind, -self.t_us)
        rows = self.take(np.lexsort(keys))
        if len(rows) < 2:
            return rows
        same = (rows.t_us, rows.kind, rows.lat, rows.lon) + (() if is_one_device else (rows.device,))
        is_new = np.ones(len(rows), np.bool_)
        is_new[1:] = np.any([key[1:] != key[:-1] for key in same], axis=0)
        return rows.take(is_new)


def joined(parts: Sequence[FixRows]) -> FixRows:
    """The rows of all parts."""
    if len(parts) == 1:
        return parts[0]
    names = [each.name for each in fields(FixRows)]
    return FixRows(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def nothing() -> FixRows:
    """No rows."""
    empty: I8 = np.zeros(0, np.int64)
    codes: U1 = np.zeros(0, np.uint8)
    return FixRows(
        empty, empty, empty, np.zeros(0, np.uint64), codes, codes, np.zeros(0, np.float32), empty, empty
    )


def rows_of(first: pa.Table, table: pa.Table, which: I8 | slice = slice(None)) -> FixRows:
    """The columns COLUMNS of the data set `fixes`, the first three from a table of their own.

    Without a column `partition`, that is 0.

    Args:
        first: t, lat and lon.
        table: the other columns.
        which: indices of the wanted rows.
    """
    t_us = ticks(first["t"])[which]
    has_partition = "partition" in table.column_names
    return FixRows(
        t_us,
        steps(first["lat"], which),
        steps(first["lon"], which),
        pseudonyms(table["device"], which),
        codes(table["kind"], KINDS, which),
        codes(table["verdict"], VERDICTS, which),
        np.asarray(table["acc"].to_numpy()[which], np.float32),
        np.asarray(table["partition"].to_numpy()[which], np.int64)
        if has_partition
        else np.zeros(len(t_us), np.int64),
        np.asarray(table["seq"].to_numpy()[which], np.int64),
    )


def ticks(column: pa.ChunkedArray) -> I8:
    """Times as integers in the unit in which they are stored."""
    return np.asarray(column.cast(pa.int64()).to_numpy())


def steps(column: pa.ChunkedArray, which: I8 | slice = slice(None)) -> I8:
    """Positions as multiples of 1 / STEPS_PER_DEG degrees, exactly."""
    width = np.dtype(f"<i{column.type.bit_width // 8}")
    parts = [
        np.frombuffer(chunk.buffers()[1], width, len(chunk), chunk.offset * width.itemsize)
        for chunk in column.chunks
    ]
    return np.concatenate([np.zeros(0, width), *parts])[which].astype(np.int64)


def codes(column: pa.ChunkedArray, names: Sequence[str], which: I8 | slice = slice(None)) -> U1:
    """Names as their indices in `names`."""
    indices, texts = _dictionary(column)
    return np.array([names.index(text) for text in texts], np.uint8)[indices[which]]


def pseudonyms(column: pa.ChunkedArray, which: I8 | slice = slice(None)) -> U8:
    """Pseudonyms of 16 hexadecimal digits as numbers."""
    indices, texts = _dictionary(column)
    return np.frombuffer(bytes.fromhex("".join(texts)), ">u8").astype(np.uint64)[indices[which]]


def _dictionary(column: pa.ChunkedArray) -> tuple[I8, list[str]]:
    """A name for each index, and the indices of all rows; a name may be there again for each chunk."""
    if not pa.types.is_dictionary(column.type):
        column = pc.dictionary_encode(column)
    indices, texts = [np.zeros(0, np.int64)], list[str]()
    for chunk in column.chunks:
        indices.append(chunk.indices.to_numpy() + len(texts))
        texts += chunk.dictionary.to_pylist()
    return np.concatenate(indices), texts

"""Fixes on their way to the history: kept as columns until they are sent."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headcount.counting.fix_columns import U1, U8
from headcount.messages.history import FixColumns
from headcount.messaging.payloads import Rows

#: The most rows in one message; the broker takes 8 MiB.
MESSAGE_ROWS = 10_000
#: Larger accuracies mean nothing, and would not fit the history's column.
MAX_ACC_M = 1e9


class Kept:
    """Rows in the order in which they were counted."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._parts: list[tuple[NDArray[Any], ...]] = []
        self._rows = 0

    def __len__(self) -> int:
        """How many rows there are."""
        return self._rows

    def add(self, rows: Rows, which: NDArray[np.bool_], device: U8, kind: U1, verdict: U1) -> None:
        """Keep some rows.

        Args:
            rows: n messages.
            which: bool [n], m of them true: those to keep.
            device: pseudonyms of the m, as `Pseudonyms.many` has them.
            kind: of the m, an index into KINDS.
            verdict: of the m, an index into VERDICTS.
        """
        columns: tuple[NDArray[Any], ...] = (
            *(rows.seq, rows.t_s, rows.received_s),
            *(rows.lat_deg, rows.lon_deg, rows.acc_m),
        )
        if len(device) != len(rows):
            columns = tuple(column[which] for column in columns)
        self._parts.append((*columns, device, kind, verdict))
        self._rows += len(device)

    def take(self) -> list[FixColumns]:
        """Everything, in messages of a bounded size; nothing is kept any more."""
        parts, n = self._parts, self._rows
        self._parts, self._rows = [], 0
        if not n:
            return []
        columns = [np.concatenate(parts) for parts in zip(*parts, strict=True)]
        return [
            _message([column[start : start + MESSAGE_ROWS] for column in columns])
            for start in range(0, n, MESSAGE_ROWS)
        ]


def _message(columns: list[NDArray[Any]]) -> FixColumns:
    seq, t_s, received_s, lat_deg, lon_deg, acc_m, device, kind, verdict = columns
    return FixColumns(
        seq.astype("<i8").tobytes(),
        t_s.astype("<f8").tobytes(),
        received_s.astype("<f8").tobytes(),
        device.tobytes(),
        kind.tobytes(),
        lat_deg.astype("<f8").tobytes(),
        lon_deg.astype("<f8").tobytes(),
        np.clip(np.nan_to_num(acc_m), 0.0, MAX_ACC_M).astype("<f4").tobytes(),
        verdict.tobytes(),
    )

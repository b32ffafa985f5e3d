"""Rows for the history, collected as the bytes of HistoryFixes until they are published."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headcount.counting.fix_columns import I8, U1, U8, FixColumns
from headcount.messages.history import FIX_TYPES, HistoryFixes

#: Rows of one message at most: the broker accepts 8 MiB.
MESSAGE_ROWS = 10_000
#: Larger accuracies are meaningless and would not fit the column.
MAX_ACC_M = 1e9
_TYPES = tuple(FIX_TYPES.values())


class HistoryRows:
    """Rows in the order in which they were counted."""

    def __init__(self) -> None:
        self._columns = [bytearray() for _ in _TYPES]

    def __len__(self) -> int:
        return len(self._columns[-1])

    def add(self, fixes: FixColumns, which: I8, pseudonyms: U8, kind: U1, verdict: U1) -> None:
        """Add some rows.

        Args:
            fixes: n rows.
            which: the m rows to add, int64 [m].
            pseudonyms: of the m devices, as `PseudonymSource.many`.
            kind: of the m, an index into KINDS.
            verdict: of the m, an index into VERDICTS.
        """
        picked: list[NDArray[Any]] = [fixes.seq, fixes.t_s, fixes.received_s]
        picked += [fixes.lat_deg, fixes.lon_deg, fixes.acc_m]
        if len(kind) != len(fixes):
            picked = [column[which] for column in picked]
        seq, t_s, received_s, lat_deg, lon_deg, acc_m = picked
        acc_m = np.clip(np.nan_to_num(acc_m, posinf=0.0), 0.0, MAX_ACC_M)
        columns = (seq, t_s, received_s, pseudonyms, kind, lat_deg, lon_deg, acc_m, verdict)
        for collected, column, type_ in zip(self._columns, columns, _TYPES, strict=True):
            collected.extend(column.astype(type_).tobytes())

    def take(self) -> list[HistoryFixes]:
        """Remove and return all rows, in messages of a bounded size."""
        columns, rows = self._columns, len(self)
        self._columns = [bytearray() for _ in _TYPES]
        sizes = [np.dtype(type_).itemsize for type_ in _TYPES]
        return [
            HistoryFixes(
                *(
                    bytes(column[size * start : size * (start + MESSAGE_ROWS)])
                    for column, size in zip(columns, sizes, strict=True)
                )
            )
            for start in range(0, rows, MESSAGE_ROWS)
        ]

"""Rows for the history, collected as the bytes of HistoryFixes until they are published."""

from __future__ import annotations

import numpy as np

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
        self._len = 0
        self._parts: list[tuple[FixColumns, I8, U8, U1, U1]] = []

    def __len__(self) -> int:
        return self._len

    def add(self, fixes: FixColumns, which: I8, pseudonyms: U8, kind: U1, verdict: U1) -> None:
        """Add some rows.

        Args:
            fixes: n rows.
            which: the m rows to add, int64 [m].
            pseudonyms: of the m devices, as `PseudonymSource.many`.
            kind: of the m, an index into KINDS.
            verdict: of the m, an index into VERDICTS.
        """
        self._len += len(which)
        self._parts.append((fixes, which, pseudonyms, kind, verdict))

    def take(self) -> list[HistoryFixes]:
        """Remove and return all rows, in messages of a bounded size."""
        parts, self._parts, self._len = self._parts, [], 0
        if not parts:
            return []
        fixes = FixColumns.joined([part[0] for part in parts])
        lengths = [len(part[0]) for part in parts]
        starts = np.cumsum([0, *lengths[:-1]])
        which = np.concatenate([part[1] + start for part, start in zip(parts, starts, strict=True)])
        pseudonyms, kind, verdict = (np.concatenate([part[column] for part in parts]) for column in (2, 3, 4))
        picked = (fixes.seq, fixes.t_s, fixes.received_s, fixes.lat_deg, fixes.lon_deg, fixes.acc_m)
        seq, t_s, received_s, lat_deg, lon_deg, acc_m = (column[which] for column in picked)
        acc_m = np.clip(np.nan_to_num(acc_m, posinf=0.0), 0.0, MAX_ACC_M)
        columns = (seq, t_s, received_s, pseudonyms, kind, lat_deg, lon_deg, acc_m, verdict)
        typed = [column.astype(type_) for column, type_ in zip(columns, _TYPES, strict=True)]
        return [
            HistoryFixes(*(column[start : start + MESSAGE_ROWS].tobytes() for column in typed))
            for start in range(0, len(which), MESSAGE_ROWS)
        ]

"""Messages of one partition of the log, before they are decoded.

The reader of the log and the reader of a single device's messages both deliver them, `payloads` decodes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, compress

import numpy as np

from headcount.counting.fix_columns import B1, I8


@dataclass(frozen=True, slots=True)
class RawBatch:
    """n messages in the order of the log, each once; all columns have length n."""

    partition: int
    subjects: list[bytes]  # without the prefix of acknowledged copies, see `qos1`
    payloads: list[bytes]
    seq: I8
    received_ns: I8  # Unix nanoseconds, by the server's clock
    pending: int = 0  # messages of the partition that the server has yet to deliver

    def __len__(self) -> int:
        return len(self.subjects)

    def pick(self, which: list[bool] | B1) -> RawBatch:
        """The messages for which `which` is true."""
        mask = np.asarray(which, dtype=np.bool_)
        return RawBatch(
            self.partition,
            list(compress(self.subjects, which)),
            list(compress(self.payloads, which)),
            self.seq[mask],
            self.received_ns[mask],
            self.pending,
        )

    @classmethod
    def joined(cls, parts: list[RawBatch]) -> RawBatch:
        """The messages of one or more batches of a partition, in their order."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            parts[0].partition,
            list(chain.from_iterable(part.subjects for part in parts)),
            list(chain.from_iterable(part.payloads for part in parts)),
            np.concatenate([part.seq for part in parts]),
            np.concatenate([part.received_ns for part in parts]),
            parts[-1].pending,
        )

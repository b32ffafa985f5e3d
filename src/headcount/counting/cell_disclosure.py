"""Public numbers of cells that count people: flows between zones, and how long stays are. Pure.

A cell counts each pseudonym once, and a pseudonym is in a bounded number of cells a day (history/flows.py). It is published by
the rules of public counts (disclosure.py): below a threshold that a keyed coin selects from k and the next
numbers, nothing but "<k"; else one of the two multiples of k around it, selected by a keyed coin. So with
bounded contribution c, one person changes c numbers of a table by k at most; the same cell has the same number in every answer.
"""

from __future__ import annotations

import hashlib

from headcount.counting.disclosure import SUPPRESSED, spread


class CellDisclosure:
    """Exact numbers of cells → public ones."""

    def __init__(self, smallest: int, key: bytes) -> None:
        """Publish numbers of `smallest` (k) or more. `key`: at most 64 bytes."""
        self.smallest = smallest
        self._key = key

    def publish(self, cell: str, people: int) -> int:
        """The public number of a cell: a multiple of k, or `SUPPRESSED`.

        Args:
            cell: its name, the same in every answer: site, table, kind, zones and period.
            people: in the cell.
        """
        k = self.smallest
        if people < k + self._coin(f"{cell}|threshold") % spread(k):
            return SUPPRESSED
        over = people % k
        return people - over + (k if self._coin(f"{cell}|{people}") * k < over << 64 else 0)

    def _coin(self, text: str) -> int:
        """Return a number of 64 bits."""
        return int.from_bytes(hashlib.blake2b(text.encode(), key=self._key, digest_size=8).digest(), "big")

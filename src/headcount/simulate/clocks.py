"""Recordings with wrong clocks: one device that thinks it is 1970 must not make a replay of 50 years."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from headcount.counting.fix_columns import B1, F8
from headcount.messages.times import iso
from headcount.simulate.traces import Trace

#: A longer time without a row is skipped if no device is present.
MAX_GAP_S = 86_400.0
#: A longer time without a row is probably a wrong clock.
SUSPICIOUS_GAP_S = 365 * 86_400.0
#: A row is compared with the median of this number of rows on each side of it.
_NEIGHBOURS = 5
#: It is wrong if it differs by more than MAX_GAP_S and this many times as much as the neighbours usually do.
_FACTOR = 20.0


def arrivals(trace: Trace) -> F8:
    """The time of receipt of each row: `received`, or `t` without one."""
    if trace.received_s is None:
        return trace.t_s
    return np.where(np.isfinite(trace.received_s), trace.received_s, trace.t_s)


def wrong_clocks(arrival_s: F8) -> B1:
    """The rows whose time is far from that of the rows around them, in the order of the file.

    Args:
        arrival_s: finite Unix seconds [n].
    """
    n = len(arrival_s)
    if n < 3:
        return np.zeros(n, dtype=np.bool_)
    width = min(_NEIGHBOURS, n - 1)
    found: B1 = np.zeros(n, dtype=np.bool_)
    # a row can be far from the others around it only near a step of at least this part of the gap
    steps = np.flatnonzero(np.abs(np.diff(arrival_s)) > MAX_GAP_S / (2 * width))
    for offset in range(1 - width, width + 1) if len(steps) else ():
        found[np.clip(steps + offset, 0, n - 1)] = True
    rows = np.flatnonzero(found)
    if not len(rows):
        return found
    # mirrored without the row at the end itself, so that it does not outweigh its neighbours
    around = sliding_window_view(np.pad(arrival_s, width, mode="reflect"), 2 * width + 1)[rows]
    middle = np.median(around, axis=1)
    usual = np.median(np.abs(around - middle[:, np.newaxis]), axis=1)
    found[rows] = np.abs(arrival_s[rows] - middle) > MAX_GAP_S + _FACTOR * usual
    return found


def trace_warnings(trace: Trace) -> list[str]:
    """A sentence each about an empty file, an unusual encoding, and rows with a wrong clock."""
    warnings = [] if len(trace) else ["the file has no rows"]
    if trace.encoding != "UTF-8":
        warnings.append(f"the file is in {trace.encoding}, and was read as such")
    return warnings + _clock_warnings(trace)


def _clock_warnings(trace: Trace) -> list[str]:
    arrival_s = arrivals(trace)
    good = np.isfinite(arrival_s) & (trace.problem == 0)
    good_s = arrival_s[good]
    if not len(good_s) or np.ptp(good_s) <= MAX_GAP_S:
        return []
    wrong = wrong_clocks(good_s)
    warnings = []
    if wrong.any():
        row = int(np.flatnonzero(good)[wrong][0])
        first = f"row {row + 1} of {trace.devices[trace.device[row]]} is from {iso(float(arrival_s[row]))}"
        more = f", and {wrong.sum() - 1} more rows are as far off" if wrong.sum() > 1 else ""
        warnings.append(f"{first}, far from the rows around it{more}: is a clock wrong?")
    others_s = np.sort(good_s[~wrong])
    gaps = np.flatnonzero(np.diff(others_s) > SUSPICIOUS_GAP_S)
    if len(gaps):
        before, after = (iso(float(t_s)) for t_s in others_s[gaps[0] : gaps[0] + 2])
        warnings.append(f"there is no row between {before} and {after}: is a clock wrong?")
    return warnings

"""Our rules: the engine of a running deployment, fed with fixes in the order of receipt."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from headcount.counting.engine import Engine
from headcount.counting.events import Events
from headcount.counting.fix_columns import B1, F8, I4, I8, U1, FixColumns
from headcount.counting.site import Site
from headcount.counting.zone_lookup import ZoneLookup
from headcount.lab.accuracy.error_model import ReceivedFixes
from headcount.messages.topics import KINDS
from headcount.simulate.places import to_degrees

#: Added to seconds since midnight: a day of 2027 in Unix seconds.
EPOCH_S = 1_800_000_000.0
#: Fixes per batch where the cost is measured.
BATCH = 10_000


@dataclass(frozen=True, slots=True)
class EngineCounts:
    """Members and bounds by the engine at T instants."""

    members: B1  # [T, N, Z]
    bounds: I4  # [T, Z, kinds, numbers], numbers as in COUNT_FIELDS; empty if not wanted


def engine_counts(
    fixes: ReceivedFixes, kind: U1, lookup: ZoneLookup, at_s: F8, *, bounds: bool = True
) -> EngineCounts:
    """Count fixes with the engine.

    Args:
        fixes: in the order of receipt.
        kind: of each device.
        lookup: the zones of the site, prepared; several counts may share them.
        at_s: the instants of the counts.
        bounds: whether low and high are wanted, too.
    """
    site = lookup.site
    engine = Engine(site, lookup)
    names = [f"{KINDS[each]}.d{device}".encode() for device, each in enumerate(kind.tolist())]
    columns = _columns(fixes, site)
    stops = np.searchsorted(fixes.received_s, at_s, side="right")
    state = np.zeros((len(kind), len(site.zones)), np.bool_)
    device_of = np.zeros(4 * len(kind) + 64, np.int64)
    found, counts, start = [], [], 0
    for at, stop in zip(at_s.tolist(), stops.tolist(), strict=True):
        senders = fixes.device[start:stop]
        slots = engine.slots([names[device] for device in senders.tolist()])
        device_of[slots] = senders
        _apply(engine.step(columns.part(start, stop), slots).events, device_of, state)
        _apply(engine.advance(at + EPOCH_S), device_of, state)
        found.append(state.copy())
        if bounds:
            counts.append(engine.counts(at + EPOCH_S))
        start = stop
    return EngineCounts(np.array(found), np.array(counts, np.int32))


def _columns(fixes: ReceivedFixes, site: Site) -> FixColumns:
    lat_deg, lon_deg = to_degrees(site, fixes.x_m, fixes.y_m)
    what = np.zeros(len(fixes), np.uint8)
    return FixColumns(what, fixes.received_s + EPOCH_S, fixes.t_s + EPOCH_S, lat_deg, lon_deg, fixes.acc_m)


def _apply(events: Events, device_of: I8, state: B1) -> None:
    """Apply changes of membership in their order: of several of one device and zone, the last one stays."""
    state[device_of[events.device], events.zone] = events.enter


def engine_seconds(fixes: ReceivedFixes, kind: U1, lookup: ZoneLookup) -> float:
    """CPU seconds of the engine for all fixes in batches, without counts, after a first pass over them."""
    columns = _columns(fixes, lookup.site)
    for _ in range(2):
        engine = Engine(lookup.site, lookup)
        began_s = time.process_time()
        for start in range(0, len(fixes), BATCH):
            names = [
                f"{KINDS[kind[device]]}.d{device}".encode() for device in fixes.device[start : start + BATCH]
            ]
            engine.step(columns.part(start, start + BATCH), engine.slots(names))
        took_s = time.process_time() - began_s
    return took_s

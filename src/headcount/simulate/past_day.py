"""The day before a demonstration: a simulated crowd at the pace of the clock, in the stored history."""

from __future__ import annotations

import logging
import threading

import numpy as np

from headcount.counting.site import Site
from headcount.devices.pseudonyms import Pseudonyms
from headcount.history.catalog import Catalog
from headcount.history.hours import HOUR_S
from headcount.history.objects import ObjectStore
from headcount.messages.times import DAY_S
from headcount.settings.retention_periods import RetentionPeriods
from headcount.simulate.backfill import backfill
from headcount.simulate.crowd import Crowd
from headcount.simulate.traces import Trace

_log = logging.getLogger(__name__)

#: Time between the instants at which devices report: coarse, for a day is simulated in a second.
STEP_S = 30.0
#: The simulated time of day at the end, when `headcount simulate` goes on.
END_CLOCK_S = 34_200.0


def store_past_day(
    store: ObjectStore,
    site: Site,
    pseudonyms: Pseudonyms,
    now_s: float,
    *,
    periods: RetentionPeriods,
    people: int,
    vehicles: int,
    seed: int,
    stop: threading.Event,
) -> int:
    """Store the day before `now_s` (Unix seconds) in a history; returns the number of fixes.

    The morning up to now is stored first. Its crowd is the one that `headcount simulate` starts with this seed;
    on the day before, there were other people. It blocks for some seconds, or until `stop` is set.

    Raises:
        DataFolderError, StoreError: the store cannot be written.
    """

    def report(at_s: float, share: float) -> None:
        del at_s, share
        if stop.is_set():
            raise _StoppedError

    # cut at the start of an hour, for an hour is counted by one of the two
    midnight_s = -(-(now_s - END_CLOCK_S) // HOUR_S) * HOUR_S
    clock_s = END_CLOCK_S - (now_s - midnight_s)
    morning = Crowd(site, people, vehicles, seed, clock_s), midnight_s, now_s
    day_before = Crowd(site, people, vehicles, seed + 1, END_CLOCK_S), now_s - DAY_S, midnight_s
    fixes = 0
    for crowd, from_s, until_s in (morning, day_before):
        trace = recording(crowd, from_s, until_s)
        try:
            fixes += backfill(
                Catalog(store),
                trace,
                [(0.0, site)],
                pseudonyms.on(site.id),
                periods=periods,
                now_s=now_s,
                from_s=from_s,
                until_s=until_s,
                progress=report,
            ).fixes
        except _StoppedError:
            break
        _log.info("stored %d simulated fixes of the past day", fixes)
    return fixes


class _StoppedError(Exception):
    """The simulated day is not wanted any more."""


def recording(crowd: Crowd, from_s: float, until_s: float) -> Trace:
    """The reports of a crowd between two instants (Unix seconds), of which the first is the crowd's time now."""
    start_s, steps = crowd.t_s, int((until_s - from_s) / STEP_S)
    after_s = STEP_S * np.arange(1, steps + 1)
    reports = [crowd.step(start_s + each) for each in after_s.tolist()]
    device = np.concatenate([each.device for each in reports])
    lat, lon, acc = (
        np.concatenate([getattr(each, name) for each in reports]) for name in ("lat_deg", "lon_deg", "acc_m")
    )
    return Trace(
        source="the simulated day",
        devices=tuple(crowd.names),
        device=device.astype(np.int32),
        kind=crowd.kind[device],
        t_s=np.repeat(from_s + after_s, [len(each) for each in reports]),
        received_s=None,
        lat_deg=lat.round(7),
        lon_deg=lon.round(7),
        acc_m=acc,
        vel_mps=np.full(len(device), np.nan),
        problem=np.zeros(len(device), np.uint8),
    )

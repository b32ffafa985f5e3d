"""Counts of expired instants, typical weeks and heat maps over real HTTP."""

from __future__ import annotations

import random
import statistics
import time
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from api_fixture import Api, moment, open_api
from derived_rows import Row, store_counts, summary
from headcount.api.schemas.counts import ZoneHistoryResponse
from headcount.api.schemas.weeks import HeatMapResponse, TypicalWeekResponse
from headcount.history.catalog import Catalog
from headcount.history.derive import derive
from headcount.history.objects import FolderStore

DAY_S, HOUR_S = 86_400, 3600
ZONE = "/v1/sites/ul/zones/library"
HIDDEN: dict[str, Any] = {"open": False, "smallest_shown": 5}
LOCAL = ZoneInfo("Europe/Dublin")


def seed_weeks(api: Api, days: int, step_s: int) -> list[Row]:
    """Store counts of some days up to a day ago, derive minutes of them, and let the counts of older days expire."""
    rng, catalog = random.Random(3), Catalog(FolderStore(api.settings.data / "history"))
    end_s = int(time.time()) // DAY_S * DAY_S
    rows = []
    for at_s in range(end_s - days * DAY_S, end_s, step_s):
        people = {zone: rng.randrange(40) * rng.randrange(2) for zone in ("library", "z1")}
        for zone, number in {"site": sum(people.values()), **people}.items():
            numbers = {"person_count": number, "vehicle_count": rng.randrange(3)}
            whole = {"partitions": 4, "partitions_total": 4}
            rows.append({"at": at_s * 1000, "site": "ul", "zone": zone, **numbers, **whole})
    store_counts(catalog, rows)
    derive(catalog, end_s + 600, kept_s=1e9)
    names = {each.name for each in catalog.manifest().of("counts") if each.to_s < end_s - DAY_S}
    catalog.commit(lambda before: before.without(names, time.time()))
    return rows


@pytest.mark.parametrize("step_s", [60, 180, 3600, 7200, 2 * DAY_S])
async def test_expired_counts_in_any_step(tmp_path: Path, step_s: int) -> None:
    """Minutes of expired instants, and instants that are still there, give the steps of all instants."""
    async with open_api(tmp_path, zones=2) as api:
        rows = seed_weeks(api, 3, 30)
        first_s, last_s = rows[0]["at"] // 1000, rows[-1]["at"] // 1000
        from_s = first_s if step_s > 600 else last_s - DAY_S - HOUR_S // 2 * 2
        found = await api.json(f"{ZONE}/history?from={from_s}&to={last_s}&step={step_s}")
        ZoneHistoryResponse.model_validate(found)
        assert (found["version"], found["corrected"]) == (1, None)
        wanted = [row for row in rows if row["zone"] == "library" and row["at"] // 1000 > from_s - step_s]
        expected = {
            each["at"]: each
            for each in summary(wanted, step_s)
            if from_s <= each["at"] - step_s or step_s > 600
        }
        answered = {moment(row["at"]): row for row in found["rows"]}
        assert len(answered) >= len(expected) > 1
        for at_s, row in expected.items():
            if at_s > last_s:
                continue
            person = answered[at_s]["person"]
            numbers = (person["count"], person["min"], person["max"])
            assert numbers == (row["person_last"], row["person_min"], row["person_max"])
            assert person["mean"] == pytest.approx(row["person_sum"] / row["instants"])


async def test_a_step_that_minutes_do_not_have_is_refused(tmp_path: Path) -> None:
    """The error names the step; the same step is answered for the last day."""
    async with open_api(tmp_path, zones=2) as api:
        last_s = seed_weeks(api, 3, 600)[-1]["at"] // 1000
        answer = await api.get(f"{ZONE}/history?from={last_s - 2 * DAY_S}&to={last_s}&step=90")
        assert answer.status_code == 422
        assert "multiple of 60" in answer.text
        assert (await api.json(f"{ZONE}/history?from={last_s - 3600}&to={last_s}&step=90"))["version"] is None


async def test_heat_map_and_typical_week_equal_brute_force(tmp_path: Path) -> None:
    """Means by local day and hour, and the quartiles over the days of each hour of the week."""
    async with open_api(tmp_path, zones=2) as api:
        rows = seed_weeks(api, 9, 900)
        span = f"from={rows[0]['at'] // 1000}&to={rows[-1]['at'] // 1000}"
        found = await api.json(f"{ZONE}/heat-map?{span}")
        HeatMapResponse.model_validate(found)
        cells: dict[tuple[str, int], list[int]] = defaultdict(list)
        for row in rows[3:]:  # the first instant ends a quarter that is not in the span
            if row["zone"] == "library":
                # an instant on the hour ends the hour before
                at = datetime.fromtimestamp(row["at"] / 1000 - 1, LOCAL)
                cells[at.date().isoformat(), at.hour].append(row["person_count"])
        shown = {
            (day["date"], hour): number
            for day in found["days"]
            for hour, number in enumerate(day["person"])
            if number is not None
        }
        assert shown == {cell: pytest.approx(statistics.fmean(of), abs=0.01) for cell, of in cells.items()}
        week = await api.json(f"{ZONE}/typical-week?weeks=2&to={rows[-1]['at'] // 1000}")
        TypicalWeekResponse.model_validate(week)
        assert len(week["hours"]) == 168
        from_s = rows[-1]["at"] // 1000 - 14 * DAY_S
        days: dict[tuple[int, int], list[float]] = defaultdict(list)
        for (date, hour), of in cells.items():
            at = datetime.fromisoformat(date).replace(hour=hour, tzinfo=LOCAL)
            if from_s + HOUR_S <= at.timestamp():
                days[at.isoweekday(), hour].append(statistics.fmean(of))
        for each in week["hours"]:
            means = days[each["weekday"], each["hour"]]
            if each["person"]["days"] != len(means):  # the hour in which the span begins
                continue
            quartiles = [each["person"][name] for name in ("lower", "median", "upper")]
            assert quartiles == pytest.approx(np.quantile(means, [0.25, 0.5, 0.75]).tolist(), abs=0.01)


async def test_public_weeks_are_made_of_public_counts_alone(tmp_path: Path) -> None:
    """An attacker can compute them from the public history, so they add nothing to it."""
    async with open_api(tmp_path, zones=2, **HIDDEN) as api:
        rows = seed_weeks(api, 9, 1800)
        from_s, to_s = rows[0]["at"] // 1000, rows[-1]["at"] // 1000
        history = await api.json(f"{ZONE}/history?from={from_s}&to={to_s}&step=1800")
        assert history["version"] == 1
        public: dict[tuple[str, int], Any] = {}
        for row in history["rows"]:
            at = datetime.fromtimestamp(moment(row["at"]), LOCAL)
            if at.minute == 30:
                public[at.date().isoformat(), at.hour] = row["person"]["count"]
        found = await api.json(f"{ZONE}/heat-map?from={from_s}&to={to_s}")
        shown = {
            (day["date"], hour): number
            for day in found["days"]
            for hour, number in enumerate(day["person"])
            if number is not None
        }
        assert shown == {cell: number for cell, number in public.items() if number is not None}
        assert {"<5"} < set(shown.values())
        week = await api.json(f"{ZONE}/typical-week?weeks=2&to={to_s}")
        for each in week["hours"]:
            of = [
                -1 if number == "<5" else number
                for (date, hour), number in public.items()
                if hour == each["hour"]
                and datetime.fromisoformat(date).isoweekday() == each["weekday"]
                and datetime.fromisoformat(date).replace(hour=hour, minute=30, tzinfo=LOCAL).timestamp()
                >= to_s - 14 * DAY_S
            ]
            low, high = sorted(of)[(len(of) - 1) // 2], sorted(of)[len(of) // 2]
            assert each["person"]["median"] == ("<5" if -1 in (low, high) else (low + high) / 2)

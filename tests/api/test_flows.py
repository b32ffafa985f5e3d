"""Arrivals, dwell times, trips and stays, exact and public, over real HTTP."""

from __future__ import annotations

import csv
import io
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import flow_oracle as oracle
from api_fixture import Api, moment, open_api, status_is
from derived_rows import store_events
from flow_oracle import US
from headcount.api.schemas import flows as schemas
from headcount.devices.pseudonym_keys import PseudonymKeys
from headcount.history.catalog import Catalog
from headcount.history.derive import derive
from headcount.history.objects import FolderStore
from headcount.history.stays import ZoneEvent
from headcount.messaging.connection import Connection
from person_fixture import open_people

DAY_S = 86_400
PLACES = {"library": ["library"], "z1": ["z1"], "both": ["library", "z1"]}
ZONE = "/v1/sites/ul/zones/library"
BINS = (0, 60, 300, 900, 1800, 3600, 7200, 14_400, 28_800)
HIDDEN: dict[str, Any] = {"open": False, "smallest_shown": 5}


def catalog_of(api: Api) -> Catalog:
    """The history that the API reads."""
    return Catalog(FolderStore(api.settings.data / "history"))


def yesterday_s() -> float:
    """The beginning of the last whole day (UTC)."""
    return float(int(time.time()) // DAY_S * DAY_S - DAY_S)


def seed_day(api: Api, devices: int, *, until_s: float | None = None) -> list[ZoneEvent]:
    """Store the events of a day, and derive it."""
    start_s = yesterday_s()
    events = oracle.walk(
        random.Random(8), start_s=start_s, hours=26, devices=devices, sites=("ul",), places=PLACES
    )
    store_events(catalog_of(api), events)
    derive(catalog_of(api), until_s or start_s + DAY_S + 600, kept_s=10 * DAY_S)
    return events


def numbers_of(
    events: list[ZoneEvent], from_s: float, to_s: float, *, people: bool
) -> Counter[tuple[str, str, str, str]]:
    """Kind, table, zone and other → number over some hours."""
    occurrences, total = oracle.occurrences(events), Counter[tuple[str, str, str, str]]()
    for hour in range(int(to_s - from_s) // 3600):
        for cell, numbers in oracle.flows_of(occurrences, from_s + hour * 3600).items():
            total[cell[1:]] += numbers[people]
    return total


async def test_exact_numbers_equal_the_definition(tmp_path: Path) -> None:
    """Arrivals by the hour, dwell times and the matrix by the day, as JSON and CSV."""
    async with open_api(tmp_path, zones=2) as api:
        events, start_s = seed_day(api, 12), yesterday_s()
        span = f"from={start_s:.0f}&to={start_s + DAY_S - 1:.0f}"
        found = await api.json(f"{ZONE}/arrivals?{span}")
        schemas.ArrivalsResponse.model_validate(found)
        assert len(found["rows"]) > 15
        for row in found["rows"]:
            at_s = moment(row["from"])
            expected = numbers_of(events, at_s, at_s + 3600, people=False)
            for kind in ("person", "vehicle"):
                for table in ("arrivals", "departures"):
                    assert row[kind][table] == expected[kind, table, "library", ""]
            assert (row["closed"], row["version"], row["corrected"]) == (True, 1, None)
        expected = numbers_of(events, start_s, start_s + DAY_S, people=False)
        text = (await api.get(f"/v1/sites/ul/arrivals.csv?{span}&step=86400")).text
        (row,) = [row for row in csv.DictReader(io.StringIO(text)) if row["zone"] == "z1"]
        assert int(row["person_departures"]) == expected["person", "departures", "z1", ""] > 0
        found = await api.json(f"{ZONE}/dwell-times?{span}")
        schemas.DwellTimesResponse.model_validate(found)
        for kind in ("person", "vehicle"):
            dwell = found["rows"][0][kind]
            bins = {str(each["from_s"]): each["stays"] for each in dwell["bins"]} | {
                "unknown": dwell["unknown"]
            }
            assert bins == {
                low: expected[kind, "dwell", "library", low] for low in map(str, [*BINS, "unknown"])
            }
        found = await api.json(f"/v1/sites/ul/origin-destination?{span}")
        schemas.OriginDestinationResponse.model_validate(found)
        zones = found["zones"]
        assert zones == ["library", "z1", "outside"]
        for kind in ("person", "vehicle"):
            matrix = [[expected[kind, "trips", a, b] for b in zones] for a in zones]
            assert found["rows"][0][kind] == matrix
        text = (await api.get(f"/v1/sites/ul/origin-destination.csv?{span}")).text
        for line in csv.DictReader(io.StringIO(text)):
            cell = (line["origin"], line["destination"])
            assert int(line["person"]) == expected["person", "trips", *cell]


async def test_an_hour_that_is_not_over_is_answered_as_open(tmp_path: Path) -> None:
    """Events of a second ago are in the exact answer, and not in the public one."""
    async with open_api(tmp_path, zones=2) as api:
        now_s = time.time()
        event = ZoneEvent("ul", "person", "a" * 16, round((now_s - 1) * US), "library", True, "moved")
        store_events(catalog_of(api), [event])
        (row,) = (await api.json(f"{ZONE}/arrivals"))["rows"]
        assert (row["closed"], row["version"], row["person"]["arrivals"]) == (False, None, 1)
    async with open_api(tmp_path, zones=2, **HIDDEN) as api:
        assert (await api.json(f"{ZONE}/arrivals"))["rows"] == []


async def test_public_numbers_are_hidden_or_rounded(tmp_path: Path) -> None:
    """`<5` or a multiple of 5 near the number of different people; in fixed periods; the same in every answer."""
    async with open_api(tmp_path, zones=2, **HIDDEN) as api:
        events, start_s = seed_day(api, 120), yesterday_s()
        expected = numbers_of(events, start_s, start_s + DAY_S, people=True)
        span = f"from={start_s:.0f}&to={start_s + DAY_S - 1:.0f}"
        found = await api.json(f"/v1/sites/ul/origin-destination?{span}")
        zones, shown = found["zones"], 0
        for a, row in zip(zones, found["rows"][0]["person"], strict=True):
            for b, number in zip(zones, row, strict=True):
                people = expected["person", "trips", a, b]
                if number == "<5":
                    assert people < 8
                else:
                    shown += 1
                    assert number % 5 == 0
                    assert people >= 5
                    assert abs(number - people) < 5
        assert shown > 3
        again = await api.json(f"/v1/sites/ul/origin-destination?from={start_s - 5 * DAY_S:.0f}")
        assert again["rows"] == found["rows"]
        for path in (
            "zones/library/arrivals?step=7200",
            "zones/library/dwell-times?step=3600",
            "origin-destination?step=172800",
        ):
            answer = await api.get(f"/v1/sites/ul/{path}")
            assert answer.status_code == 422
            assert "step" in answer.text
        arrivals = await api.json(f"{ZONE}/arrivals?{span}")
        numbers = {row["person"]["arrivals"] for row in arrivals["rows"]}
        assert all(number == "<5" or number % 5 == 0 for number in numbers)


async def test_a_day_is_public_when_it_is_over(tmp_path: Path) -> None:
    """Answers before the day's last hour is derived leave it out: two of them would show the difference."""
    async with open_api(tmp_path, zones=2, **HIDDEN) as api:
        seed_day(api, 20, until_s=yesterday_s() + DAY_S - 1800)
        path = f"/v1/sites/ul/origin-destination?from={yesterday_s():.0f}"
        assert (await api.json(path))["rows"] == []
        derive(catalog_of(api), yesterday_s() + DAY_S + 600, kept_s=10 * DAY_S)
        assert len((await api.json(path))["rows"]) == 1


async def test_stays_need_the_right_and_a_reason(tmp_path: Path) -> None:
    """Operators with a reason list the stays of devices, and the audit log has it."""
    async with open_people(tmp_path) as people:
        api, now_s = people.api, time.time()
        name = "0123456789abcdef"
        events = [
            ZoneEvent("ul", "person", name, round((now_s - 900) * US), "library", True, "moved"),
            ZoneEvent("ul", "person", name, round((now_s - 300) * US), "library", False, "silent"),
        ]
        store_events(catalog_of(api), events)
        for role, path, status in (
            ("viewer", f"{ZONE}/stays?reason=ticket+12", 403),
            ("operator", f"{ZONE}/stays", 422),
            ("operator", f"{ZONE}/stays?reason=ticket+12", 200),
        ):
            answer = await api.get(path, headers=await people.token(role))  # type: ignore[arg-type]
            assert answer.status_code == status
        found = schemas.StaysResponse.model_validate(answer.json())
        (stay,) = found.stays
        assert (stay.device, stay.reason) == (name, "silent")
        assert stay.from_ is not None
        assert stay.to is not None
        assert moment(stay.to) - moment(stay.from_) == 600
        (entry, *_), _ = await api.services.audit_log.entries(action="positions.read")
        assert entry.detail["reason"] == "ticket 12"
        assert entry.detail["data"] == "stays"


async def test_own_stays_continue_over_midnight(tmp_path: Path) -> None:
    """A device sees one stay where others see two, and no stays of others."""
    async with open_people(tmp_path) as people:
        ada = await people.phone()
        keys = PseudonymKeys(Connection(people.api.nats))
        today = int(time.time()) // DAY_S
        await keys.ensure([today - 1, today])
        known = await keys.pseudonyms_of("ul", "person", ada.id)
        midnight_us = today * DAY_S * US
        events = [
            ZoneEvent("ul", "person", known[today - 1], midnight_us - 60 * US, "library", True, "moved"),
            ZoneEvent("ul", "person", known[today], midnight_us + 60 * US, "library", False, "moved"),
            ZoneEvent("ul", "person", "f" * 16, midnight_us + 60 * US, "library", True, "moved"),
        ]
        store_events(catalog_of(people.api), events)
        found = (await people.ask(ada, "GET", "/v1/me/stays")).json()
        schemas.OwnStaysResponse.model_validate(found)
        (stay,) = found["stays"]
        assert moment(stay["to"]) - moment(stay["from"]) == 120
        assert (await people.ask(ada, "GET", "/v1/me/export")).json()["stays"] == found["stays"]
        assert await status_is(people.api, "/v1/me/stays", 401)

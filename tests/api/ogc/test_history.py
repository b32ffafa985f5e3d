"""Counts over time as features: stored minutes of expired instants, gaps, and public counts."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from api_fixture import Api, moment, open_api
from derived_rows import Row, store_counts, summary
from headcount.history.catalog import Catalog
from headcount.history.derive import derive
from headcount.history.objects import FolderStore

DAY_S = 86_400
ITEMS = "/ogc/collections/ul.history/items"
PUBLIC: dict[str, Any] = {"open": False, "smallest_shown": 5}


def seed(api: Api) -> list[Row]:
    """Store counts of three days of which the second has none; the instants of the first one have expired."""
    rng, catalog = random.Random(5), Catalog(FolderStore(api.settings.data / "history"))
    end_s = int(time.time()) // DAY_S * DAY_S
    instants = [
        at_s for day in (3, 1) for at_s in range(end_s - day * DAY_S, end_s - (day - 1) * DAY_S, 1200)
    ]
    rows = [
        {
            "at": at_s * 1000,
            "site": "ul",
            "zone": zone,
            "person_count": rng.randrange(40),
            "vehicle_count": 0,
            "partitions": 4,
            "partitions_total": 4,
        }
        for at_s in instants
        for zone in ("site", "library", "z1")
    ]
    store_counts(catalog, rows)
    derive(catalog, end_s + 600, kept_s=1e9)
    names = {each.name for each in catalog.manifest().of("counts") if each.to_s < end_s - DAY_S}
    catalog.commit(lambda before: before.without(names, time.time()))
    return rows


async def pages(api: Api, path: str) -> list[list[dict[str, Any]]]:
    """The features of all pages."""
    found = []
    while path:
        answer = await api.json(path.removeprefix(api.base))
        found.append(answer["features"])
        path = next((each["href"] for each in answer["links"] if each["rel"] == "next"), "")
    return found


@pytest.mark.parametrize("limits", [{}, PUBLIC], ids=["exact", "public"])
async def test_all_stored_minutes_are_features(tmp_path: Path, limits: dict[str, Any]) -> None:
    """Each stored minute of each zone is one feature, also where its instants have expired; no page is empty."""
    async with open_api(tmp_path, zones=2, **limits) as api:
        expected = {f"{row['zone']}@{row['at']}": row for row in summary(seed(api), 60)}
        found = await pages(api, f"{ITEMS}?limit=100")
        assert min(map(len, found)) > 0
        features = {each["id"]: each["properties"] for page in found for each in page}
        assert features.keys() == expected.keys()
        assert sum(map(len, found)) == len(expected)
        for id_, row in expected.items():
            numbers = features[id_]
            assert moment(numbers["at"]) == row["at"]
            if limits:
                count, below = numbers["person_count"], numbers["person_below"]
                assert below in (5, None) if count is None else abs(count - row["person_last"]) < 5
                assert numbers["person_mean"] is None
            else:
                of_minute = (numbers["person_count"], numbers["person_min"], numbers["person_max"])
                assert of_minute == (row["person_last"], row["person_min"], row["person_max"])
        first = min(expected.values(), key=lambda row: row["at"])
        (one,) = (await pages(api, f"{ITEMS}?zone=library&datetime=../{iso_of(first['at'])}"))[0]
        assert one["id"] == f"library@{first['at']}"
        none = f"{ITEMS}?datetime={iso_of(first['at'] + DAY_S)}/{iso_of(first['at'] + DAY_S + 60)}"
        assert await pages(api, none) == [[]]


def iso_of(at_s: float) -> str:
    """A moment as RFC 3339."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))

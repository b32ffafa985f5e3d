"""Sites, counts and history over real HTTP, with a hand in the worker's place."""

from __future__ import annotations

import csv
import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import history_batches
from api_fixture import Api, make_count_stream, moment, open_api, serving, site_with, status_is
from headcount.api.live_counts import LiveCounts, fragment
from headcount.api.schemas.counts import (
    CountsResponse,
    HistoryResponse,
    ZoneCountsResponse,
    ZoneHistoryResponse,
)
from headcount.api.schemas.system import ReadinessResponse
from headcount.counting.fix_columns import I4
from headcount.counting.site_versions import only
from headcount.messages.counts import PartitionCounts, encode_counts
from headcount.messages.times import iso
from waiting import until


async def test_sites_and_geojson(tmp_path: Path) -> None:
    """The list has the site with its links, and the site answers with its GeoJSON."""
    async with open_api(tmp_path) as api:
        (site,) = (await api.json("/v1/sites"))["sites"]
        assert (site["id"], site["name"], site["zones"]) == ("ul", "Campus <UL>", 4)
        answer = await api.get(site["links"]["self"])
        assert answer.headers["content-type"] == "application/geo+json"
        assert answer.json() == api.site.geojson
        assert (await api.get(site["links"]["counts"])).status_code == 503


async def test_counts_are_sums_over_partitions(tmp_path: Path) -> None:
    """Both partitions' numbers of one instant are added."""
    async with open_api(tmp_path) as api:
        at = api.tick()
        await api.publish(0, at, api.values({"site": (3, 1), "library": (2, 0)}))
        await api.publish(1, at, api.values({"site": (4, 0), "library": (1, 0)}))
        await api.seen(at)
        counts = await api.json("/v1/sites/ul/counts")
        CountsResponse.model_validate(counts)
        assert counts["at"] == iso(at)
        numbers = {z["zone"]: (z["person"]["count"], z["vehicle"]["count"]) for z in counts["zones"]}
        assert numbers == {"site": (7, 1), "library": (3, 0), "z1": (0, 0), "z2": (0, 0)}
        zone = await api.json("/v1/sites/ul/zones/library")
        ZoneCountsResponse.model_validate(zone)
        assert zone["person"] == {"count": 3, "low": 1, "high": 5, "stale": 0}


class Hand:
    """Live counts with a clock that is set by hand, fed without a broker."""

    def __init__(self) -> None:
        """Start at an instant of the grid."""
        self.now = 1_795_525_200.0
        self.site = site_with(1)
        self.live = LiveCounts(only(self.site), 2, clock=lambda: self.now)

    def report(self, partition: int, number: int, epoch: int = 1) -> None:
        """A partition reports the present instant."""
        values: I4 = np.full((len(self.site.zones), 2, 4), number, np.int32)
        report = PartitionCounts("ul", partition, 2, epoch, 1, self.now, 1, len(values), values.tobytes())
        self.live.take(encode_counts([report]))

    def current(self) -> tuple[float, int, int]:
        """The newest total: how long ago, its number, fresh partitions."""
        assert self.live.snapshot
        total = self.live.snapshot.total
        return round(self.now - total.at, 1), int(total.values[0, 0, 0]), total.partitions_fresh


def test_an_instant_waits_for_all_partitions() -> None:
    """An instant that one partition has reported is published when the other has reported too, or when it is overdue."""
    hand = Hand()
    hand.report(0, 3)
    hand.report(1, 4)
    hand.now += 0.5
    hand.report(0, 90)
    hand.live.check_overdue()
    assert hand.current() == (0.5, 7, 2)
    hand.report(1, 1)
    assert hand.current() == (0.0, 91, 2)
    hand.now += 1.5
    hand.report(0, 5)
    assert hand.current() == (1.5, 91, 2)
    hand.live.check_overdue()
    assert hand.current() == (1.5, 6, 2)
    hand.now += 1.0
    hand.live.check_overdue()
    assert hand.current() == (2.5, 6, 1)
    assert hand.live.overdue_partitions() == [1]


def test_a_clock_that_is_set_back() -> None:
    """When the clock is set back, counts continue immediately, and no future instant is remembered."""
    hand = Hand()
    hand.report(0, 3)
    hand.report(1, 4)
    hand.now -= 3600
    hand.report(0, 5)
    hand.report(1, 6)
    assert hand.current() == (0.0, 11, 2)
    remembered = hand.live.remembered(hand.now + 3600)
    assert remembered is None


def test_memory_has_no_holes() -> None:
    """A moment in a hole of memory isn't answered with numbers from long before it."""
    hand = Hand()
    start = hand.now
    for later in (0, 1, 2, 60, 61):
        hand.now = start + later
        hand.report(0, later)
        hand.report(1, 0)
    found = [hand.live.remembered(start + later) for later in (-1, 0.5, 11, 40, 61)]
    assert [total and int(total.values[0, 0, 0]) for total in found] == [None, 0, 2, None, 61]


async def test_first_answer_comes_from_the_last_counts(tmp_path: Path) -> None:
    """An API that starts when no worker runs shows the last numbers that were published."""
    async with open_api(tmp_path) as api:
        at = await api.count({"site": (11, 2)})
        async with serving(api.settings, api.broker, api.nats) as second:
            await second.seen(at)
            zone = await second.json("/v1/sites/ul/zones/site")
            assert zone["person"]["count"] == 11


async def test_without_streams_counts_still_come(tmp_path: Path) -> None:
    """Before the log's streams are made, live counts are served, and the last ones are read once they are."""
    async with open_api(tmp_path, with_stream=False) as api:
        assert (await api.get("/v1/sites/ul/counts")).json()["type"] == "/problems/no-counts-yet"
        await api.count({"site": (5, 5)})
        await make_count_stream(api.nats)
        await api.count({"site": (6, 5)})


async def test_foreign_and_broken_counts_are_ignored(tmp_path: Path) -> None:
    """Rubbish, another site's counts and counts of other zones change nothing and are counted."""
    async with open_api(tmp_path) as api:
        await api.count({"site": (5, 5)})
        await api.nats.publish("count.0.ul", b"\x00rubbish")
        await api.publish(0, api.tick(), np.zeros((9, 2, 4), np.int32))
        await api.publish(0, api.tick() + 3600, api.values({"site": (99, 99)}))
        await api.count({"site": (6, 5)})
        rejected = re.search(
            r'^headcount_rejected_messages_total\{type="counts"\} (\d+)',
            (await api.get("/metrics")).text,
            re.MULTILINE,
        )
        # and a correct message that comes late, on a busy machine
        assert rejected is not None
        assert int(rejected[1]) >= 3


async def test_counts_of_the_last_minutes_come_from_memory(tmp_path: Path) -> None:
    """`at` gives the newest remembered numbers at or before that moment, to the second."""
    async with open_api(tmp_path) as api:
        moments = {}  # an instant a second, the later ones ahead of the clock
        for people in (1, 2, 3):
            moments[people] = await api.count({"site": (people, 0)})
            api.last += 1
        for people, at in moments.items():
            for asked in (f"{at + 0.4:.3f}", iso(at + 0.4)):
                counts = await api.json("/v1/sites/ul/counts", params={"at": asked})
                assert counts["zones"][0]["person"]["count"] == people
                assert counts["age_s"] == pytest.approx(0.4, abs=0.002)


async def test_older_counts_come_from_the_history(tmp_path: Path) -> None:
    """A moment before memory is answered from the segments; before these, it is not recorded."""
    before = float(int(time.time() / 10) * 10 - 1000)
    (tmp_path / "data").mkdir()
    numbers = history_batches.values(2, 100)
    history_batches.write(
        tmp_path / "data",
        history_batches.batch(counts=[(before, numbers), (before + 10, numbers)]),
        now_s=before + 60,
    )
    async with open_api(tmp_path) as api:
        await api.count({"site": (1, 1)})
        counts = await api.json("/v1/sites/ul/counts", params={"at": str(before + 5)})
        CountsResponse.model_validate(counts)
        assert counts["at"] == iso(before)
        assert counts["zones"][0]["person"] == {"count": 100, "low": 101, "high": 102, "stale": 103}
        zone = await api.json("/v1/sites/ul/zones/library", params={"at": iso(before + 5)})
        assert zone["vehicle"]["count"] == 112
        lost = await api.get("/v1/sites/ul/zones/z1", params={"at": str(before + 5)})
        assert (lost.status_code, lost.json()["type"]) == (404, "/problems/not-recorded")
        none = await api.get("/v1/sites/ul/counts", params={"at": str(before - 5)})
        assert (none.status_code, none.json()["type"]) == (404, "/problems/not-recorded")
        span = {"from": str(before - 60), "to": str(before + 60), "step": "10"}
        history = await api.json("/v1/sites/ul/zones/library/history", params=span)
        ZoneHistoryResponse.model_validate(history)
        assert [row["at"] for row in history["rows"]] == [iso(before), iso(before + 10)]
        assert history["rows"][0]["person"] == {"count": 108, "min": 108, "max": 108, "mean": 108.0}
        empty = await api.json("/v1/sites/ul/zones/library/history")
        assert isinstance(empty["rows"], list)
        both = await api.json("/v1/sites/ul/history", params=span | {"zones": "library,site"})
        HistoryResponse.model_validate(both)
        assert [each["zone"] for each in both["zones"]] == ["site", "library"]
        assert both["zones"][1]["rows"] == history["rows"]
        table = await api.get("/v1/sites/ul/history.csv", params=span | {"zones": "library,site"})
        assert table.headers["content-type"].startswith("text/csv")
        rows = list(csv.DictReader(table.text.splitlines()))
        assert [(row["zone"], row["at"]) for row in rows][::2] == [
            ("site", iso(before)),
            ("library", iso(before)),
        ]
        assert (rows[2]["person_count"], rows[2]["person_mean"], rows[0]["person_count"]) == (
            "108",
            "108.0",
            "100",
        )
        unknown = await api.get("/v1/sites/ul/history", params={"zones": "moon"})
        assert (unknown.status_code, unknown.json()["errors"][0]["parameter"]) == (422, "zones")
        many = await api.get("/v1/sites/ul/history", params={"step": "10", "from": str(before - 60_000)})
        assert (many.status_code, many.json()["errors"][0]["parameter"]) == (422, "step")


async def test_capacity_and_share(tmp_path: Path) -> None:
    """Zones with a capacity have it beside each count, with the share that is used; others have neither."""
    plain = site_with(2)
    zones = (plain.zones[0], replace(plain.zones[1], capacity=(600, None)), plain.zones[2])
    async with open_api(tmp_path, site=replace(plain, zones=zones)) as api:
        at = await api.count({"site": (420, 1), "library": (414, 0)})
        for path in ("/v1/sites/ul/counts", f"/v1/sites/ul/counts?at={at}"):
            counts = await api.json(path)
            CountsResponse.model_validate(counts)
            whole, library, _ = counts["zones"]
            assert (library["person"]["capacity"], library["person"]["share"]) == (600, 0.69)
            assert "capacity" not in library["vehicle"]
            assert "share" not in whole["person"]


def test_the_share_of_a_hidden_count_is_hidden() -> None:
    """Public counts have the capacity, and a share only where the count is shown."""
    zone = replace(site_with(1).zones[1], capacity=(600, 10))
    person, vehicle = ({"count": "<5"}, {"count": 5})
    found = json.loads(bytes(fragment(zone, [person, vehicle])))
    assert found["person"] == {"count": "<5", "capacity": 600, "share": None}
    assert found["vehicle"] == {"count": 5, "capacity": 10, "share": 0.5}


async def test_numbers_grow_old_without_broker_and_recover(tmp_path: Path) -> None:
    """Without broker the last numbers are served with a growing age and /readyz states the reason, until the broker is back."""
    async with open_api(tmp_path) as api, api.keep_counting({"site": (4, 2)}):
        await until(lambda: status_is(api, "/readyz", 200))
        assert api.broker
        await api.broker.kill()
        await until(lambda: status_is(api, "/readyz", 503))
        first = await api.json("/v1/sites/ul/counts")
        await until(lambda: age_above(api, 2.1))
        later = await api.json("/v1/sites/ul/counts")
        assert later["zones"] == first["zones"]
        assert later["age_s"] > first["age_s"]
        reason = (await api.get("/readyz")).json()
        assert reason["type"] == "/problems/not-ready"
        assert "core is not connected" in reason["detail"]
        assert (await api.get("/healthz")).json() == {"status": "alive"}
        await until(lambda: fresh_is(api, 0))
        await api.broker.start()
        await until(lambda: status_is(api, "/readyz", 200))
        ReadinessResponse.model_validate(await api.json("/readyz"))
        await until(lambda: fresh_is(api, 2))


async def test_readiness_names_the_silent_partition(tmp_path: Path) -> None:
    """When one partition is silent, /readyz names it, and totals go on with `partitions_fresh` lowered."""
    async with open_api(tmp_path) as api:
        await api.count({"site": (4, 2)})

        async def one_is_silent() -> bool:
            await api.publish(0, api.tick(), api.values({"site": (9, 9)}))
            said: str = (await api.get("/readyz")).text
            counts = await api.json("/v1/sites/ul/counts")
            as_told = "1 of 2 partitions are fresh; overdue: 1." in said
            return as_told and (counts["partitions_fresh"], people(counts)) == (1, 9)

        await until(one_is_silent)


def people(counts: Any) -> int:
    """How many there are on site."""
    number: int = counts["zones"][0]["person"]["count"]
    return number


async def age_above(api: Api, seconds: float) -> bool:
    """Whether the counts are older than that."""
    counts = await api.json("/v1/sites/ul/counts")
    assert counts["age_s"] == pytest.approx(time.time() - moment(counts["at"]), abs=1.0)
    return bool(counts["age_s"] > seconds)


async def fresh_is(api: Api, partitions: int) -> bool:
    """Whether this number of partitions is fresh."""
    return bool((await api.json("/v1/sites/ul/counts"))["partitions_fresh"] == partitions)

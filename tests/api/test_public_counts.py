"""Public counts, over real HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import history_batches
from api_fixture import PARTITIONS, SECRET, Api, Sent, events, moment, open_api, site_with, status_is
from headcount.api.schemas.counts import CountsResponse, ZoneCountsResponse, ZoneHistoryResponse
from headcount.counting.disclosure import GRID_S, Disclosure, as_public, disclosure_key, grid_before
from headcount.counting.fix_columns import I4
from headcount.messages.times import iso
from waiting import until

COUNTS = "/v1/sites/ul/counts"
HIDDEN: dict[str, Any] = {"open": False, "smallest_shown": 5}
#: A number that is nowhere by accident.
ODD = 7919


@asynccontextmanager
async def hidden_api(folder: Path, **limits: Any) -> AsyncIterator[Api]:
    """An API that hides small counts."""
    async with open_api(folder, zones=2, **{**HIDDEN, **limits}) as api:
        yield api


async def report(api: Api, at: float, numbers: dict[str, tuple[int, int]]) -> None:
    """All partitions report an instant."""
    values = api.values(numbers)
    for partition in range(PARTITIONS):
        await api.publish(partition, at, values if partition == 0 else np.zeros_like(values))


async def viewer(api: Api) -> dict[str, str]:
    """The header of a caller who may see exact counts, once the API knows the token."""
    _, text = await api.services.token_store.add("a viewer", "viewer")
    header = {"authorization": f"Bearer {text}"}

    async def known() -> bool:
        return (await api.get("/v1/sites", headers=header)).status_code == 200

    await until(known)
    return header


async def seen(api: Api, at: float) -> None:
    """Return when the public counts of an instant are served."""

    async def is_published() -> bool:
        answer = await api.get(COUNTS)
        return answer.status_code == 200 and moment(answer.json()["at"]) >= at

    await until(is_published)


def public_values(at: float, *zones: tuple[int, int]) -> I4:
    """The public counts of these exact ones, in the order of the site's zones."""
    disclosure = Disclosure(site_with(2), 5, disclosure_key(SECRET.encode()))
    return disclosure.publish(at, np.array(zones, np.int32))


def by_zone(answer: dict[str, Any]) -> dict[str, tuple[object, object]]:
    """People and vehicles."""
    return {z["zone"]: (z["person"]["count"], z["vehicle"]["count"]) for z in answer["zones"]}


def as_json(numbers: I4) -> dict[str, tuple[object, object]]:
    """The same of the method's numbers."""
    zones = (zone.id for zone in site_with(2).zones)
    return {
        z: (as_public(row[0], 5), as_public(row[1], 5))
        for z, row in zip(zones, numbers.tolist(), strict=True)
    }


async def test_public_sees_rounded_counts_by_the_minute(tmp_path: Path) -> None:
    """Anybody gets the last whole minute, small counts hidden; who has counts:exact gets what is now."""
    async with hidden_api(tmp_path) as api:
        grid_s = grid_before(time.time()) - GRID_S
        await report(api, grid_s, {"site": (43, 7), "library": (12, 3), "z1": (4, 0)})
        await seen(api, grid_s)  # an API that starts reads only the last report of each partition
        await report(api, grid_s + 0.1, {"site": (61, 8), "library": (31, 9), "z1": (17, 8)})
        answer = await api.json(COUNTS)
        CountsResponse.model_validate(answer)
        assert answer["at"] == iso(grid_s)
        assert by_zone(answer) == as_json(public_values(grid_s, (43, 7), (12, 3), (4, 0)))
        assert by_zone(answer)["z1"] == ("<5", "<5")
        assert by_zone(answer)["library"][0] in (10, 15)
        assert {z["person"][name] for z in answer["zones"] for name in ("low", "high", "stale")} == {None}
        zone = await api.json("/v1/sites/ul/zones/z1")
        ZoneCountsResponse.model_validate(zone)
        assert (zone["person"]["count"], zone["person"]["high"]) == ("<5", None)
        header = await viewer(api)
        exact = await api.json(COUNTS, headers=header)
        assert exact["at"] == iso(grid_s + 0.1)
        assert by_zone(exact) == {"site": (61, 8), "library": (31, 9), "z1": (17, 8)}


async def test_streams_change_by_the_minute(tmp_path: Path) -> None:
    """Between whole minutes a public stream has signs of life only, of the same instant; then all that changed."""
    async with hidden_api(tmp_path, ping_s=0.2) as api:
        first_s = grid_before(time.time()) - 2 * GRID_S
        await report(api, first_s, {"site": (40, 0), "library": (20, 0), "z1": (4, 0)})
        await seen(api, first_s)
        async with api.http.stream("GET", "/v1/sites/ul/stream?every=0.1") as answer:
            stream = events(answer.aiter_lines())
            full = await following(stream)
            assert (full.event, full.data["full"], full.id) == ("counts", True, iso(first_s))
            for tick in range(1, 6):
                await report(api, first_s + tick / 10, {"site": (90, 0), "library": (80 + tick, 0)})
            between = [await following(stream) for _ in range(2)]
            assert {(e.event, e.data["at"]) for e in between} == {("ping", iso(first_s))}
            # the public count of this zone is unchanged, though the exact one differs
            await report(api, first_s + GRID_S, {"site": (40, 0), "library": (30, 0), "z1": (1, 0)})
            while (changed := await following(stream)).event == "ping":
                pass
            assert by_zone(changed.data) == {"library": (30, "<5")}


async def following(stream: AsyncIterator[Sent]) -> Sent:
    """The next event."""
    async with asyncio.timeout(120):
        return await anext(stream)


async def test_history_repeats_the_published_counts(tmp_path: Path) -> None:
    """Public counts of the past equal those published then, at whole minutes; finer steps are rejected."""
    end_s = grid_before(time.time()) - 10 * GRID_S
    rng = np.random.default_rng(3)
    minutes = {
        end_s - GRID_S * n: [(int(a + b + 3), 9), (int(a), 6), (int(b), 0)]
        for n, (a, b) in enumerate(rng.integers(0, 30, (20, 2)))
    }
    stored = []
    for at, zones in minutes.items():
        for seconds in (0, 10, 50):
            values = np.zeros((3, 2, 4), "<i4")
            values[:, :, 0] = zones if not seconds else ODD
            stored.append((at + seconds, values.tobytes()))
    (tmp_path / "data").mkdir()
    batch = history_batches.batch(counts=sorted(stored), zones=("site", "library", "z1"))
    history_batches.write(tmp_path / "data", batch, now_s=end_s + GRID_S)
    async with hidden_api(tmp_path) as api:
        path = "/v1/sites/ul/zones/library/history"
        span = {"from": str(end_s - 15 * GRID_S - 1), "to": str(end_s + 5)}
        history = await api.json(path, params=span)
        ZoneHistoryResponse.model_validate(history)
        expected = {
            iso(at): as_json(public_values(at, *minutes[at]))["library"]
            for at in minutes
            if at >= end_s - 900
        }
        rows = {row["at"]: (row["person"]["count"], row["vehicle"]["count"]) for row in history["rows"]}
        assert rows == expected
        assert {row["person"][name] for row in history["rows"] for name in ("min", "max", "mean")} == {None}
        five = await api.json(path, params=span | {"step": "300"})
        assert {row["at"] for row in five["rows"]} == {at for at in rows if moment(at) % 300 == 0}
        assert all(
            (row["person"]["count"], row["vehicle"]["count"]) == rows[row["at"]] for row in five["rows"]
        )
        for step in ("10", "90", "60.5"):
            refused = await api.get(path, params=span | {"step": step})
            assert (refused.status_code, refused.json()["type"]) == (422, "/problems/invalid-parameter")
        for asked_s in (end_s, end_s + 30):
            then = await api.json(COUNTS, params={"at": str(asked_s)})
            assert then["at"] == iso(end_s)
            assert by_zone(then) == as_json(public_values(end_s, *minutes[end_s]))
        # after a start, the last published counts are served
        assert (await api.json(COUNTS))["at"] == iso(end_s)
        never = await api.get(COUNTS, params={"at": str(end_s - 30 * GRID_S)})
        assert (never.status_code, never.json()["type"]) == (404, "/problems/not-recorded")


async def test_nothing_before_the_first_minute(tmp_path: Path) -> None:
    """Where no whole minute has been counted yet the public gets 503, with the time to wait; others get counts."""
    async with hidden_api(tmp_path) as api:
        header = await viewer(api)
        await report(api, grid_before(time.time()) - GRID_S + 0.1, {"site": (ODD, 0)})
        await until(lambda: _has_counts(api, header))
        answer = await api.get(COUNTS)
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/no-counts-yet")
        assert 1 <= int(answer.headers["retry-after"]) <= GRID_S + 1


async def test_an_empty_site_is_public_at_the_first_start(tmp_path: Path) -> None:
    """Without a history, a first total of an empty site is public as that of the last whole minute."""
    async with hidden_api(tmp_path) as api:
        started_s = grid_before(time.time()) + 0.1
        for partition in range(PARTITIONS):
            await api.publish(partition, started_s, np.zeros_like(api.values({})))
        await seen_by_public(api)
        answer = await api.json(COUNTS)
        assert answer["at"] == iso(grid_before(started_s))
        assert set(by_zone(answer).values()) == {("<5", "<5")}
        # a later total of the same minute changes nothing
        await report(api, started_s + 1, {"site": (61, 8)})
        header = await viewer(api)
        await until(lambda: _shows(api, header, 61))
        later = await api.json(COUNTS)
        assert (later["at"], by_zone(later)) == (answer["at"], by_zone(answer))


async def seen_by_public(api: Api) -> None:
    """Return when the public gets counts."""
    await until(lambda: _has_counts(api, {}))


async def _shows(api: Api, header: dict[str, str], people: int) -> bool:
    return by_zone(await api.json(COUNTS, headers=header))["site"][0] == people


async def _has_counts(api: Api, header: dict[str, str]) -> bool:
    return (await api.get(COUNTS, headers=header)).status_code == 200


@pytest.mark.parametrize("query", ["", "?every=0.1"])
async def test_no_public_path_has_an_exact_number(tmp_path: Path, query: str) -> None:
    """Nothing that anybody may ask for, nor a header of it, has the number itself."""
    async with hidden_api(tmp_path, ping_s=0.1) as api:
        grid_s = grid_before(time.time()) - GRID_S
        await report(api, grid_s, {"site": (ODD, ODD), "library": (ODD, 0)})
        await seen(api, grid_s)  # an API that starts reads only the last report of each partition
        await report(api, grid_s + 0.1, {"site": (ODD, ODD), "library": (ODD, 0)})
        assert not await status_is(api, "/metrics", 200)
        schema = await api.json("/openapi.json")
        paths = [path for path, item in schema["paths"].items() if "get" in item and "{id}" not in path]
        for path in [path for path in paths if not path.endswith(("stream", "ws"))]:
            filled = path.replace("{site}", "ul").replace("{zone}", "library")
            answer = await api.get(filled + query)
            assert str(ODD) not in answer.text, path
            assert str(ODD) not in str(answer.headers), path
        async with api.http.stream("GET", "/v1/sites/ul/stream" + query) as answer:
            stream = events(answer.aiter_lines())
            for _ in range(3):
                assert str(ODD) not in str(await following(stream))


async def test_open_with_hidden_counts_hides_them_from_anybody(tmp_path: Path) -> None:
    """With --open and --suppress-below, small counts are hidden from callers behind a proxy."""
    async with open_api(tmp_path, zones=2, open=True, smallest_shown=5) as api:
        grid_s = grid_before(time.time()) - GRID_S
        await report(api, grid_s, {"site": (3, 0)})
        await until(lambda: status_is(api, COUNTS, 200))
        away = {"x-forwarded-for": "192.0.2.1"}

        async def hidden() -> bool:
            answer: httpx.Response = await api.get(COUNTS, headers=away)
            return answer.status_code == 200 and by_zone(answer.json())["site"] == ("<5", "<5")

        await until(hidden)
        assert by_zone(await api.json(COUNTS))["site"] == (3, 0)

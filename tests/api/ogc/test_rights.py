"""The rights of `/v1` hold for features: hidden counts, sites of tokens, reasons for positions."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from api_fixture import Api, open_api
from features_fixture import COLLECTIONS, stored
from headcount.counting.disclosure import GRID_S
from headcount.messages.records import AccessRole
from waiting import until

CLOSED: dict[str, Any] = {"open": False, "smallest_shown": 5}


async def token(api: Api, role: AccessRole, *scopes: str, sites: tuple[str, ...] = ()) -> dict[str, str]:
    """The header of a new token."""
    _, text = await api.services.token_store.add("test", role, scopes=scopes, sites=sites)
    return {"authorization": f"Bearer {text}"}


async def test_positions_need_a_right_and_a_reason(tmp_path: Path) -> None:
    """Fixes are listed and readable with `positions:read` only, and each read is in the audit log with its reason."""
    stored(tmp_path / "data", float(int(time.time())))
    async with open_api(tmp_path, **CLOSED) as api:
        operator, viewer = await token(api, "operator"), await token(api, "viewer")
        items = "/ogc/collections/ul.fixes/items"
        reason = {"headcount-reason": "search for a missing person"}
        for headers, status in (({}, 401), (reason, 401), (viewer | reason, 403), (operator, 400)):
            answer = await api.get(items, headers=headers)
            assert answer.status_code == status, answer.text
        for headers, listed in ((viewer, COLLECTIONS[:3]), (operator, COLLECTIONS), ({}, COLLECTIONS[:3])):
            found = await api.json("/ogc/collections", headers=headers)
            assert tuple(each["id"] for each in found["collections"]) == listed
            definition = await api.json("/ogc/api", headers=headers)
            assert ("/collections/ul.fixes/items" in definition["paths"]) is ("ul.fixes" in listed)
        assert (await api.services.audit_log.entries())[0] == []
        answer = await api.json(f"{items}?bbox=-9,52,-8,53&limit=2", headers=operator | reason)
        assert len(answer["features"]) == 2
        by_query = await api.json(f"{items}?reason=drill&limit=2", headers=operator)
        (following,) = (each["href"] for each in by_query["links"] if each["rel"] == "next")
        assert "reason=drill" in following
        (last, first) = (await api.services.audit_log.entries())[0]
        assert (first.action, first.detail["reason"]) == ("positions.read", reason["headcount-reason"])
        assert first.detail["bbox"] == "-9.0,52.0,-8.0,53.0"
        assert last.detail["reason"] == "drill"
        # pages of other origins may not read what a browser shows by itself
        assert "access-control-allow-origin" not in (await api.get(items)).headers
        zones = await api.get("/ogc/collections/ul.zones/items")
        assert zones.headers["access-control-allow-origin"] == "*"


async def test_a_token_of_another_site_sees_nothing(tmp_path: Path) -> None:
    """A token limited to sites gets no collection of others, and 404 for them."""
    async with open_api(tmp_path, **CLOSED) as api:
        other = await token(api, "operator", sites=("elsewhere",))
        assert (await api.json("/ogc/collections", headers=other))["collections"] == []
        for collection in COLLECTIONS:
            path = f"/ogc/collections/{collection}"
            for address in (path, f"{path}/items?reason=test", f"{path}/queryables", f"{path}/items/site"):
                assert (await api.get(address, headers=other)).status_code == 404


async def test_small_counts_are_hidden(tmp_path: Path) -> None:
    """The public gets the counts of `/v1`: rounded, or null with the number that they are below, and no bounds."""
    async with open_api(tmp_path, **CLOSED) as api:
        minute_s = time.time() // GRID_S * GRID_S

        async def published() -> Any:
            for partition in range(api.settings.partitions):
                numbers: dict[str, tuple[int, int]] = (
                    {} if partition else {"site": (412, 3), "library": (52, 0)}
                )
                await api.publish(partition, minute_s, api.values(numbers))
            answer = await api.get("/v1/sites/ul/counts")
            return answer.json() if answer.status_code == 200 else None

        public = await until(published, "public counts")
        features = (await api.json("/ogc/collections/ul.counts/items"))["features"]
        by_zone = {each["zone"]: each for each in public["zones"]}
        for feature in features:
            numbers = feature["properties"]
            for kind in ("person", "vehicle"):
                count = by_zone[feature["id"]][kind]["count"]
                hidden = isinstance(count, str)
                assert numbers[f"{kind}_count"] == (None if hidden else count)
                assert numbers[f"{kind}_below"] == (5 if hidden else None)
                assert [numbers[f"{kind}_{name}"] for name in ("low", "high", "stale")] == [None] * 3
        hidden = await api.json("/ogc/collections/ul.counts/items?filter=vehicle_count < 5")
        assert hidden["features"] == []
        crowd = await api.json("/v1/sites/ul/ngsi-ld/entities?type=CrowdFlowObserved&options=keyValues")
        library = next(each for each in crowd if each["id"].endswith(":library"))
        assert library["peopleCount"] == by_zone["library"]["person"]["count"]
        assert "peopleCountLow" not in library
        small = next(each for each in crowd if each["id"].endswith(":z1"))
        assert ("peopleCount" in small, small["peopleCountBelow"]) == (False, 5)
        space = await api.json("/v1/sites/ul/spaceapi.json")
        assert "z1" not in {each["name"] for each in space["sensors"]["people_now_present"]}

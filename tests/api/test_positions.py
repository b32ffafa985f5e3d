"""Positions: exactly only with the right and a reason that is written down; otherwise cells with enough in them."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg

import history_batches
from api_fixture import Api, open_api, site_with, square
from headcount.api.schemas.positions import CellFeature, CellsResponse, DeviceStateResponse, FixesResponse
from headcount.counting.site_file import parse_site
from headcount.history.queries import SLOT_S
from headcount.messages.records import AccessRole
from headcount.messages.times import iso
from headcount.messages.topics import partition_of
from headcount.messaging.site_versions import deployment_sites
from headcount.services.actors import COMMAND_LINE
from waiting import until

FIXES = "/v1/sites/ul/fixes"
REASON = {"headcount-reason": "search for a missing person"}
CLOSED: dict[str, Any] = {"open": False, "smallest_shown": 5}


async def token(api: Api, role: AccessRole, *scopes: str) -> dict[str, str]:
    """The header of a new token."""
    _, text = await api.services.token_store.add("test", role, scopes=scopes)
    return {"authorization": f"Bearer {text}"}


def stored(folder: Path, where: dict[str, tuple[float, float]], t_s: float, step_s: float = 1.0) -> None:
    """Accepted fixes of devices, one each, in the history."""
    rows = [
        history_batches.Row(n + 1, t, t, f"{n:016x}", "person", *position, 5.0, "accepted")
        for n, (name, position) in enumerate(where.items())
        for t in [t_s + n * step_s]
    ]
    folder.mkdir(exist_ok=True)
    history_batches.write(folder, history_batches.batch(rows=rows), now_s=time.time())


async def test_exact_positions_need_a_right_and_a_reason(tmp_path: Path) -> None:
    """Anonymous: 401; a viewer: cells; an operator: cells, and fixes with a reason, which the audit log has."""
    now = float(int(time.time()))
    stored(tmp_path / "data", {"a": (52.6725, -8.5725), "b": (52.6725, -8.5725)}, now - 60)
    async with open_api(tmp_path, **CLOSED) as api:
        assert (await api.get(FIXES)).status_code == 401
        assert (await api.get(FIXES, headers=REASON)).status_code == 401
        viewer = await token(api, "viewer")
        operator = await token(api, "operator")
        other = await token(api, "operator", "devices:read")
        assert (await api.get(FIXES, headers=other | REASON)).status_code == 403
        for headers in (viewer, viewer | REASON, operator, operator | {"headcount-reason": "x"}):
            answer = await api.json(FIXES, headers=headers)
            assert CellsResponse.model_validate(answer).features == []
        assert (await api.services.audit_log.entries())[0] == []
        exact = await api.json(f"{FIXES}?bbox=-9,52,-8,53", headers=operator | REASON)
        assert len(FixesResponse.model_validate(exact).features) == 2
        by_query = await api.json(f"{FIXES}?reason=drill", headers=operator)
        assert by_query["precision"] == "exact"
        last, first = (await api.services.audit_log.entries())[0]
        assert (first.action, first.detail["reason"]) == ("positions.read", REASON["headcount-reason"])
        assert (first.detail["rows"], first.detail["bbox"]) == (2, "-9,52,-8,53")
        assert first.actor.startswith("token ")
        assert last.detail["reason"] == "drill"


async def test_no_positions_where_they_can_not_be_written_down(tmp_path: Path) -> None:
    """Without the audit log, exact positions are 503."""
    async with open_api(tmp_path, **CLOSED) as api:
        headers = await token(api, "operator") | REASON
        await api.nats.jetstream().delete_stream("AUDIT")
        answer = await api.get(FIXES, headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/log-away")


async def test_cells_hide_the_few(tmp_path: Path) -> None:
    """A cell with k devices within 5 minutes is shown, one with fewer is not, and no query resolves less than a cell."""
    slot = (math.floor(time.time() / SLOT_S) - 3) * SLOT_S
    many = {name: (52.67211 + n / 1e5, -8.57259) for n, name in enumerate("abcde")}
    few = dict.fromkeys("fghi", (52.6745, -8.5725))
    stored(tmp_path / "data", many | few, slot + 10.0)
    async with open_api(tmp_path, **CLOSED) as api:
        viewer = await token(api, "viewer")

        async def cells(**parameters: Any) -> list[CellFeature]:
            answer = await api.json(FIXES, headers=viewer, params=parameters)
            text = json.dumps(answer)
            assert not any(word in text for word in ("acc", "verdict", '"device"', "0" * 15))
            return CellsResponse.model_validate(answer).features

        (cell,) = await cells()
        assert cell.properties.devices == 5
        assert (cell.properties.from_, cell.properties.to) == (iso(slot), iso(slot + SLOT_S))
        assert cell.geometry.coordinates[0][0] == [-8.573, 52.672]
        assert cell.geometry.coordinates[0][2] == [-8.572, 52.673]
        assert len(await cells(at=iso(slot + SLOT_S + 5))) == 1
        assert await cells(at=iso(slot + SLOT_S - 5)) == []  # the slot wasn't over then
        assert await cells(**{"from": iso(slot + 12)}) == []  # a span has whole slots only
        assert await cells(kind="vehicle") == []
        # a box that cuts the cell either has it whole or not at all
        assert [c.properties.devices for c in await cells(bbox="-8.58,52.6,-8.5,52.6725")] == [5]
        assert len(await cells(bbox="-8.58,52.6,-8.5,52.6721")) == 1
        assert await cells(bbox="-8.58,52.6,-8.5,52.672") == []  # it touches the cell only
        assert await cells(bbox="-8.572,52.6,-8.5,52.7") == []
        assert len(await cells(near="52.6725,-8.5725,10")) == 1
        assert len(await cells(near="52.67211,-8.57259,1")) == 1
        assert len(await cells(near="52.67311,-8.57259,20")) == 1  # its centre is in the next cell
        assert await cells(near="52.67311,-8.57259,10") == []
        corner: dict[str, Any] = {
            "type": "Polygon",
            "coordinates": [[[-8.574, 52.6728], [-8.5728, 52.674], [-8.574, 52.674], [-8.574, 52.6728]]],
        }
        assert await cells(within=json.dumps(corner)) == []  # only its box overlaps the cell
        corner["coordinates"][0][1] = [-8.5722, 52.6728]
        assert len(await cells(within=json.dumps(corner))) == 1  # smaller than a cell, off its middle
        assert len(await cells(within=json.dumps(site_with(1).geojson["features"][1]["geometry"]))) == 1


async def test_an_unfinished_slot_is_not_published(tmp_path: Path) -> None:
    """The current 5 minutes are not published until they are over, so that no change within them shows."""
    stored(tmp_path / "data", dict.fromkeys("abcdefgh", (52.6725, -8.5725)), time.time() - 20)
    async with open_api(tmp_path, **CLOSED) as api:
        answer = await api.json(FIXES, headers=await token(api, "viewer"))
        assert answer["features"] == []


async def test_stored_fixes(tmp_path: Path) -> None:
    """Stored fixes come as GeoJSON, chosen by box, circle, zone or polygon, newest first, up to the limit."""
    now = float(int(time.time()))
    where = {"a": (52.6725, -8.5725), "b": (52.6725, -8.5725), "c": (52.665, -8.57)}
    stored(tmp_path / "data", where, now - 60)
    async with open_api(tmp_path) as api:

        async def names(**parameters: Any) -> list[str]:
            answer = await api.get(FIXES, params=parameters, headers=REASON)
            assert answer.status_code == 200, answer.text
            assert answer.headers["content-type"] == "application/geo+json"
            found = FixesResponse.model_validate(answer.json())
            return ["abcdefgh"[int(f.properties.device, 16)] for f in found.features]

        assert await names() == ["c", "b", "a"]
        assert await names(limit=2) == ["c", "b"]
        assert await names(within="library") == ["b", "a"]
        polygon = json.dumps(site_with(1).geojson["features"][1]["geometry"])
        assert await names(within=polygon) == ["b", "a"]
        assert await names(bbox="-8.58,52.66,-8.56,52.67") == ["c"]
        assert await names(near="52.6725,-8.5725,10") == ["b", "a"]
        assert await names(kind="vehicle") == []
        assert await names(at=iso(now - 59.5)) == ["a"]
        assert await names(relation="disjoint", within="library") == ["c"]
        assert await names(near="52.665,-8.57", k=2) == ["c", "a"]
        ring = {"type": "Polygon", "coordinates": json.loads(polygon)["coordinates"]}
        for body in (ring, {"type": "Feature", "properties": {}, "geometry": ring}):
            answer = await api.http.post(FIXES, json=body, headers=REASON)
            assert len(FixesResponse.model_validate(answer.json()).features) == 2
        assert await names(**{"from": iso(now - 59), "to": str(now - 59)}) == ["b"]
        assert (await api.json(f"{FIXES}?limit=2", headers=REASON))["truncated"] is True


@pytest.mark.parametrize("role", ["viewer", "operator"])
async def test_device_is_asked_of_its_worker(tmp_path: Path, role: AccessRole) -> None:
    """A device's state comes from the worker of its partition, for operators with a reason only."""
    async with open_api(tmp_path, **CLOSED) as api:
        path = "/v1/sites/ul/devices/person/phone-1"
        assert (await api.get(path, headers=REASON)).status_code == 401
        headers = await token(api, role)
        if role == "viewer":
            assert (await api.get(path, headers=headers | REASON)).status_code == 403
            return
        assert (await api.get(path, headers=headers)).json()["type"] == "/problems/invalid-parameter"
        headers |= REASON
        silent = await api.get(path, headers=headers)
        assert (silent.status_code, silent.json()["type"]) == (503, "/problems/no-answer")
        state: dict[str, Any] = {
            "present": True, "zones": ["site", "library"], "last_t": 1795525198.0, "lat": 52.67, "lon": -8.57,
            "acc": 5.0, "offline": False, "last_verdict": "accepted",
        }  # fmt: skip

        async def answer(question: Msg) -> None:
            asked = json.loads(question.data)
            known = asked == {"site": "ul", "kind": "person", "device": "phone-1"}
            await question.respond(json.dumps(state if known else None).encode())

        for device in ("phone-1", "nobody"):
            partition = partition_of("ul", device, api.settings.partitions)
            await api.nats.subscribe(f"ask.{partition}", cb=answer)
        await api.nats.flush()
        found = await api.json(path, headers=headers)
        DeviceStateResponse.model_validate(found)
        assert found["last_t"] == "2026-11-24T12:59:58.000Z"
        assert {**state, "last_t": None} == {**{k: found[k] for k in state}, "last_t": None}
        unknown = await api.get("/v1/sites/ul/devices/person/nobody", headers=headers)
        assert (unknown.status_code, unknown.json()["type"]) == (404, "/problems/unknown-device")
        (entry,) = (await api.services.audit_log.entries())[0]
        assert "phone-1" not in entry.subject + str(entry.detail)


async def test_pages_and_sequences(tmp_path: Path) -> None:
    """Each page names the next one, also as a header, and a sequence has the features of the collection."""
    now = float(int(time.time()))
    where = {name: (52.6725 + n / 1e4, -8.5725) for n, name in enumerate("abcde")}
    stored(tmp_path / "data", where, now - 60)
    async with open_api(tmp_path) as api:
        whole = (await api.json(FIXES, headers=REASON))["features"]
        for parameters in ({}, {"at": iso(now)}):
            features, next_ = [], None
            for _ in range(3):
                page = {"limit": 2, **parameters} | ({} if next_ is None else {"cursor": next_})
                answer = await api.get(FIXES, params=page, headers=REASON)
                found = answer.json()
                features += found["features"]
                next_ = found["next"]
                assert (next_ is not None) == found["truncated"] == ("link" in answer.headers)
            assert next_ is None
            assert sorted(f["properties"]["device"] for f in features) == [f"{n:016x}" for n in range(5)]
        sequence = await api.get(FIXES, headers=REASON | {"accept": "application/geo+json-seq"})
        assert sequence.headers["content-type"] == "application/geo+json-seq"
        records = sequence.text.split("\x1e")[1:]
        assert [json.loads(record) for record in records] == whole
        far = (await api.json(f"{FIXES}?near=52.6725,-8.5725,100", headers=REASON))["features"]
        assert far[-1]["properties"]["distance_m"] == 0
        assert far[0]["properties"]["distance_m"] == pytest.approx(44.48, abs=0.05)


async def test_a_zone_at_an_instant_is_that_of_the_site_then(tmp_path: Path) -> None:
    """A device stands still while a zone is moved away: it was in the zone before, and is not after."""
    now = float(int(time.time()))
    stored(tmp_path / "data", {"a": (52.6725, -8.5725)}, now - 5)
    async with open_api(tmp_path, zones=2) as api:
        await deployment_sites(api.services.client, api.site, 1.0)
        file = json.loads(json.dumps(api.site.geojson))
        file["features"][1]["geometry"] = square(-8.565, 52.665, 0.001)
        changed = await api.services.sites.update(COMMAND_LINE, parse_site(file, "test"))
        assert changed.from_s > now

        async def devices(at_s: float) -> int:
            parameters = {"within": "library", "at": iso(at_s)}
            return len((await api.json(FIXES, params=parameters, headers=REASON))["features"])

        async def is_moved() -> bool:
            return await devices(changed.from_s + 1) == 0

        await until(is_moved)
        assert await devices(now) == 1


async def test_more_than_cells_needs_the_right_to_positions(tmp_path: Path) -> None:
    """Without a reason, parameters that cells do not have are refused, and a wrong cursor always is."""
    async with open_api(tmp_path, **CLOSED) as api:
        viewer = await token(api, "viewer")
        for parameters in ({"k": 3, "near": "1,2,3"}, {"relation": "disjoint"}):
            answer = await api.get(FIXES, params=parameters, headers=viewer | REASON)
            assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-parameter")
        answer = await api.get(FIXES, params={"cursor": "x"}, headers=viewer)
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-parameter")

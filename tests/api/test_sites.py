"""Several sites over HTTP: added, counted, changed and removed, and invisible to callers of other sites."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import websockets
from websockets.exceptions import InvalidStatus

from api_fixture import (
    OPEN,
    PARTITIONS,
    Api,
    app_without_broker,
    events,
    moment,
    open_api,
    serving,
    site_with,
)
from headcount.api.live_sites import LiveSites
from headcount.api.openapi import document
from headcount.counting.site_file import parse_site
from headcount.counting.site_versions import Sites, SiteVersion, SiteVersions
from headcount.messages.counts import PartitionCounts, encode_counts
from headcount.messages.records import AccessRole
from headcount.messages.times import TICK_S
from headcount.messaging.site_versions import deployment_sites
from headcount.services.actors import COMMAND_LINE
from waiting import until

CLOSED: dict[str, Any] = {"open": False, "smallest_shown": 1}
NORTH = "/v1/sites/north"
#: Values of the other parameters in paths; every one of them is well-formed.
PARAMETERS = {
    "zone": "library",
    "kind": "person",
    "device": "k3qv7m2xw5yd4hbt6zra",
    "command": "5f0c2b9a7d13e486",
}


def north(zones: int = 2) -> dict[str, Any]:
    """The file of a second site."""
    geojson: dict[str, Any] = json.loads(json.dumps(site_with(zones).geojson))
    geojson["features"][0]["properties"].update(id="north", name="North campus")
    return geojson


async def bearer(api: Api, role: AccessRole, *sites: str) -> dict[str, str]:
    """The header of a new token, which the API knows."""
    _, text = await api.services.token_store.add("test", role, sites=sites)
    header = {"authorization": f"Bearer {text}"}

    async def known() -> bool:
        return (await api.get("/v1/whoami", headers=header)).status_code == 200

    await until(known)
    return header


async def seeded(api: Api) -> None:
    """Store the API's site as the deployment's first one, as a worker does at its start."""
    await deployment_sites(api.services.client, api.site, 1.0)


async def report(api: Api, people: int, zones: int = 2) -> None:
    """All partitions report the site `north` at the present instant."""
    values, at = np.zeros((zones + 1, 2, 4), "<i4"), api.tick()
    for partition in range(PARTITIONS):
        values[:, 0] = people if partition == 0 else 0
        counts = PartitionCounts("north", partition, PARTITIONS, 1, 1, at, 1, len(values), values.tobytes())
        await api.nats.publish(f"count.{partition}.north", encode_counts([counts]))
    await api.nats.flush()


async def people(api: Api, path: str, **options: Any) -> int | None:
    """The people on a site; None: there are no counts yet."""
    answer = await api.get(f"{path}/counts", **options)
    return answer.json()["zones"][0]["person"]["count"] if answer.status_code == 200 else None


async def test_a_second_site_is_added_and_removed_while_a_stream_is_read(tmp_path: Path) -> None:
    """PUT adds it with 201, its counts are apart from the first one's, and its streams end when it is removed."""
    async with open_api(tmp_path, zones=2, **CLOSED) as api:
        await seeded(api)
        admin = await bearer(api, "admin")
        added = await api.http.put(NORTH, json=north(), headers=admin | {"if-none-match": "*"})
        assert (added.status_code, added.headers["location"]) == (201, NORTH), added.text
        assert added.json()["version"] == 1
        again = await api.http.put(NORTH, json=north(), headers=admin | {"if-none-match": "*"})
        assert (again.status_code, again.json()["type"]) == (412, "/problems/site-changed")
        listed = (await api.json("/v1/sites"))["sites"]
        assert [(site["id"], site["name"]) for site in listed] == [
            ("north", "North campus"),
            ("ul", "Campus <UL>"),
        ]
        assert (await api.get(f"{NORTH}/counts")).status_code == 503

        async def counted() -> bool:
            await api.count({"site": (7, 0)})
            await report(api, 3)
            return await people(api, NORTH, headers=admin) == 3

        await until(counted)
        assert await people(api, "/v1/sites/ul", headers=admin) == 7
        metrics = (await api.get("/metrics", headers=admin)).text
        assert 'headcount_devices_present{kind="person",site="north"} 3.0' in metrics
        assert 'headcount_devices_present{kind="person",site="ul"} 7.0' in metrics

        async with api.http.stream("GET", f"{NORTH}/stream", headers=admin) as stream:
            received = events(stream.aiter_lines())
            first = await anext(received)
            assert (first.data["site"], len(first.data["zones"])) == ("north", 3)
            removed = await api.http.delete(NORTH, headers=admin)
            assert removed.status_code == 200, removed.text
            async for _ in received:  # ends
                pass
            assert time.time() >= moment(removed.json()["effective"]) - 0.5
        gone = await api.get(NORTH)
        assert (gone.status_code, gone.json()["detail"]) == (
            404,
            "There is no site 'north'; this API serves 'ul'.",
        )
        assert await people(api, "/v1/sites/ul", headers=admin) == 7
        last = await api.http.delete("/v1/sites/ul", headers=admin)
        assert (last.status_code, last.json()["type"]) == (409, "/problems/site-limit")


async def test_an_api_starts_with_the_last_counts_of_all_sites(tmp_path: Path) -> None:
    """Without any worker, an API that starts serves what was published last, of each site."""
    async with open_api(tmp_path, zones=2, **OPEN) as api:
        await seeded(api)
        await api.services.sites.add(COMMAND_LINE, parse_site(north(), "test"))

        async def counted() -> bool:
            await api.count({"site": (7, 0)})
            await report(api, 3)
            return await people(api, NORTH) == 3

        await until(counted)
        async with serving(api.settings, None, api.nats) as later:

            async def served() -> bool:
                return (await people(later, NORTH), await people(later, "/v1/sites/ul")) == (3, 7)

            await until(served)


async def test_a_version_of_one_site_leaves_the_others_alone(tmp_path: Path) -> None:
    """If-Match refers to the site in the address; an id that differs from the address is refused."""
    async with open_api(tmp_path, zones=2, **CLOSED) as api:
        await seeded(api)
        admin = await bearer(api, "admin")
        assert (await api.http.put(NORTH, json=north(), headers=admin)).status_code == 201
        etag = (await api.get(NORTH)).headers["etag"]
        other = await api.http.put("/v1/sites/south", json=north(), headers=admin)
        assert (other.status_code, other.json()["errors"][0]["parameter"]) == (422, "id")
        matched = await api.http.put(NORTH, json=north(3), headers=admin | {"if-match": etag})
        assert (matched.status_code, matched.json()["version"]) == (200, 2), matched.text
        assert matched.json()["changes"]["added"] == ["z2"]
        stale = await api.http.put(NORTH, json=north(), headers=admin | {"if-match": etag})
        assert stale.status_code == 412
        missing = await api.http.put("/v1/sites/south", json=north(), headers=admin | {"if-match": etag})
        assert missing.status_code == 422
        assert len((await api.json("/v1/sites/ul"))["features"]) == 3


def site_routes() -> list[tuple[str, str]]:
    """Every method and path with a site, from the OpenAPI document."""
    paths = document(app_without_broker(Path("/nowhere")))["paths"]
    return [
        (method.upper(), path)
        for path, operations in paths.items()
        if "{site}" in path
        for method in operations
    ]


async def test_a_caller_limited_to_a_site_sees_no_other_on_any_route(tmp_path: Path) -> None:
    """Each route with a site is 404 `unknown-site` for a site that is unknown, and for one that the caller may not see."""
    routes = site_routes()
    assert len(routes) > 20
    async with open_api(tmp_path, zones=2, **CLOSED) as api:
        await seeded(api)
        admin, limited = await bearer(api, "admin"), await bearer(api, "admin", "ul")
        assert (await api.http.put(NORTH, json=north(), headers=admin)).status_code == 201
        listed = (await api.json("/v1/sites", headers=limited))["sites"]
        assert [site["id"] for site in listed] == ["ul"]
        for method, path in routes:

            async def asked(
                site: str, caller: dict[str, str], method: str = method, path: str = path
            ) -> httpx.Response:
                return await api.http.request(method, path.format(site=site, **PARAMETERS), headers=caller)

            hidden = await asked("north", limited)
            assert (hidden.status_code, hidden.json()["type"]) == (404, "/problems/unknown-site"), (
                method,
                path,
            )
            assert hidden.json()["detail"] == "There is no site 'north'; this API serves 'ul'."
            if method != "PUT":
                unknown = await asked("moon", admin)
                assert unknown.json()["type"] == "/problems/unknown-site", (method, path)
                assert "this API serves 'north', 'ul'" in unknown.json()["detail"]
        with pytest.raises(InvalidStatus) as refused:
            async with websockets.connect(
                f"{api.base.replace('http', 'ws', 1)}{NORTH}/ws", additional_headers=limited, proxy=None
            ):
                pass
        assert refused.value.response.status_code == 404
        for path in ("/metrics", "/v1/audit", "/v1/system/scaling"):  # about all sites
            assert (await api.get(path, headers=limited)).status_code == 403
        assert (await api.get("/v1/tokens", headers=limited)).status_code == 200


async def test_it_is_ready_when_all_sites_are_counted(tmp_path: Path) -> None:
    """/readyz names the site whose partitions are overdue, to callers who may see it."""
    async with open_api(tmp_path, zones=2, **CLOSED) as api:
        await seeded(api)
        admin, limited = await bearer(api, "admin"), await bearer(api, "viewer", "ul")
        async with api.keep_counting({"site": (1, 0)}):

            async def ready() -> bool:
                return (await api.get("/readyz")).status_code == 200

            await until(ready)
            assert (await api.http.put(NORTH, json=north(), headers=admin)).status_code == 201
            assert await ready(), "it has not begun"

            async def names_it() -> bool:
                return "Site north: 0 of 2 partitions" in (await api.get("/readyz", headers=admin)).text

            await until(names_it)
            assert "north" not in (await api.get("/readyz", headers=limited)).text


class Clock:
    """The sites `a` and `b`, with a clock that is set by hand."""

    def __init__(self) -> None:
        """Both are counted."""
        self.now = 1_795_525_200.0
        self.sites = Sites([SiteVersions([SiteVersion(1, 0, site_with(n))]) for n in (1, 2)])
        self.live = LiveSites(self.sites, 1, clock=lambda: self.now)


def test_a_site_that_is_added_again_starts_without_counts() -> None:
    """The feed of the removed site is closed, and that of its successor has no snapshot."""
    it = Clock()
    old, new = it.sites.all
    new.added, new.begins_tick = 3, round((it.now + 2) / TICK_S)
    old.ends_tick = round((it.now + 1) / TICK_S)
    it.live = LiveSites(it.sites, 1, clock=lambda: it.now)
    first = it.live.named("ul")
    assert first is not None
    assert first.versions is old
    it.now += 1
    it.live.check_overdue()
    second = it.live.named("ul")
    assert second is not None
    assert (first.live.closed.is_set(), second.versions is new, second.live.snapshot) == (True, True, None)


def test_counts_of_an_unknown_site_are_rejected() -> None:
    """Damaged messages and those of other sites are counted, also after a site is removed."""
    it = Clock()
    it.live.take(b"nonsense")
    values = np.zeros((2, 2, 4), "<i4").tobytes()
    it.live.take(encode_counts([PartitionCounts("moon", 0, 1, 1, 1, it.now, 1, 2, values)]))
    assert it.live.rejected == 2

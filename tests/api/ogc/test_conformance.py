"""The abstract tests of OGC 17-069r4 (annex A: core, GeoJSON, HTML, OpenAPI 3.0) and of 19-079r2 (filtering)."""

from __future__ import annotations

import itertools
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import shapely

import features_schemas
from api_fixture import Api
from features_fixture import COLLECTIONS, features_api
from headcount.api.ogc.documents import CONFORMANCE
from headcount.messages.times import iso

#: Invalid and unknown parameters of a request for features (query-param-invalid, query-param-unknown).
INVALID = {
    "limit": ["0", "-1", "x", "1.5", ""],
    "bbox": ["", "1,2,3", "a,b,c,d", "0,50,1,40", "-200,0,1,1", "0,0,nan,1", "1,2,3,4,5"],
    "datetime": ["", "yesterday", "1795525200", "2026-13-01T00:00:00Z", "2026-11-24", "2026-11-24T12:00:00"],
    "filter": ["", "zone =", "nothing = 1", "at = 1", "(" * 100],
    "filter-lang": ["sql"],
    "filter-crs": ["EPSG:4326"],
    "f": ["gml", ""],
    "cursor": ["x", "-1"],
    "unknown": ["1"],
    "Limit": ["1"],
}
DATETIMES = ("{a}", "{a}/{b}", "{a}/..", "{a}/", "../{b}", "/{b}", "../..")


async def features(api: Api, collection: str, **parameters: Any) -> list[dict[str, Any]]:
    """The features of one answer, which is checked."""
    answer = await api.json(f"/ogc/collections/{collection}/items", params=parameters)
    features_schemas.check("features", answer)
    assert answer["numberReturned"] == len(answer["features"])
    assert answer.get("numberMatched", 1 << 30) >= answer["numberReturned"]
    found: list[dict[str, Any]] = answer["features"]
    return found


def ids(found: list[dict[str, Any]]) -> list[Any]:
    """The ids of features."""
    return [feature["id"] for feature in found]


async def test_documents(tmp_path: Path) -> None:
    """Landing page, conformance, collections and queryables are as the standard requires; every link leads somewhere."""
    async with features_api(tmp_path) as api:
        visited: set[str] = set()
        waiting = [("/ogc", "application/json")]
        while waiting:
            href, type_ = waiting.pop()
            if href in visited:
                continue
            visited.add(href)
            answer = await api.get(href.removeprefix(api.base))
            assert answer.status_code == 200, (href, answer.text)
            content_type = answer.headers["content-type"]
            assert content_type.split(";")[0] == type_.split(";")[0], href
            if "json" in content_type:
                links = answer.json().get("links", [])
                waiting += [(each["href"], each["type"]) for each in links]
                waiting += [
                    (each["href"], each["type"])
                    for collection in answer.json().get("collections", [])
                    for each in collection["links"]
                ]
                if links:
                    assert [each["rel"] for each in links].count("self") == 1, href
                    assert "alternate" in [each["rel"] for each in links], href
        landing = await api.json("/ogc/")
        features_schemas.check("landing page", landing)
        by_rel = {each["rel"]: each for each in landing["links"]}
        assert {"service-desc", "service-doc", "conformance", "data"} <= by_rel.keys()
        assert by_rel["service-desc"]["type"] == "application/vnd.oai.openapi+json;version=3.0"
        conformance = await api.json("/ogc/conformance")
        features_schemas.check("conformance", conformance)
        assert conformance["conformsTo"] == list(CONFORMANCE)
        listed = await api.json("/ogc/collections")
        features_schemas.check("collections", listed)
        assert [each["id"] for each in listed["collections"]] == list(COLLECTIONS)
        for each in listed["collections"]:
            single = await api.json(f"/ogc/collections/{each['id']}")
            features_schemas.check("collection", single)
            assert {each["rel"] for each in single["links"]} >= {"self", "alternate", "items"}
            assert single["extent"]["spatial"]["bbox"][0] == [-8.58, 52.66, -8.56, 52.68]
            schema = await api.json(f"/ogc/collections/{each['id']}/queryables")
            features_schemas.check("queryables", schema)
            names = set((await features(api, each["id"]))[0]["properties"])
            assert schema["properties"].keys() == names | {"geometry"}
        # browsers get pages, also by the header Accept
        page = await api.get("/ogc/collections/ul.counts/items", headers={"accept": "text/html,*/*"})
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "<td>library</td>" in page.text
        assert "Campus <UL>" not in page.text


async def test_features(tmp_path: Path) -> None:
    """Each collection has valid features with unique ids, each of which is a resource, and pages visit each of them once."""
    async with features_api(tmp_path) as api:
        sizes = {}
        for collection in COLLECTIONS:
            found = await features(api, collection)
            sizes[collection] = len(found)
            assert len(set(map(str, ids(found)))) == len(found)
            for feature in found[:3]:
                single = await api.json(f"/ogc/collections/{collection}/items/{feature['id']}")
                features_schemas.check("feature", single)
                assert single["geometry"] == feature["geometry"]
                rels = {each["rel"] for each in single["links"]}
                assert {"self", "collection", "alternate"} <= rels
            for limit in (1, 2, 3, len(found) - 1, len(found)):
                href, seen, pages = f"/ogc/collections/{collection}/items?limit={limit}", [], 0
                while href:
                    answer = await api.json(href.removeprefix(api.base))
                    seen += ids(answer["features"])
                    pages += 1
                    assert len(answer["features"]) <= limit
                    href = next((each["href"] for each in answer["links"] if each["rel"] == "next"), "")
                assert seen == ids(found), (collection, limit)
                if limit > 3 or collection in ("ul.zones", "ul.fixes"):
                    assert pages <= -(-len(found) // limit) + 1
            too_large = await features(api, collection, limit=1_000_000)
            assert ids(too_large) == ids(found)
        assert (sizes["ul.zones"], sizes["ul.counts"], sizes["ul.fixes"]) == (4, 4, 5)
        assert sizes["ul.history"] == 4 * 11  # a minute ends with its instant


async def test_bbox(tmp_path: Path) -> None:
    """A bbox selects the features that intersect it, across the 180th meridian, too."""
    async with features_api(tmp_path) as api:
        for collection in COLLECTIONS:
            found = await features(api, collection)
            for box in (
                (-8.573, 52.672, -8.57295, 52.6721),
                (-8.5721, 52.6719, -8.5719, 52.67215),
                (0, 0, 1, 1),
            ):
                area = shapely.box(*box)
                wanted = [
                    feature["id"]
                    for feature in found
                    if shapely.from_geojson(json.dumps(feature["geometry"])).intersects(area)
                ]
                assert ids(await features(api, collection, bbox=",".join(map(str, box)))) == wanted, (
                    collection
                )
            everywhere = await features(api, collection, bbox="170,-90,-5,90")
            with_heights = await features(api, collection, bbox="-180,-90,0,180,90,100")
            assert ids(everywhere) == ids(with_heights) == ids(found)
            assert await features(api, collection, bbox="-5,-90,-170,90") == []


async def test_datetime(tmp_path: Path) -> None:
    """An instant or interval, closed or open, selects the features of that time; zones have none."""
    async with features_api(tmp_path) as api:
        for collection, name in (("ul.counts", "at"), ("ul.history", "at"), ("ul.fixes", "t")):
            found = await features(api, collection)
            times = sorted({feature["properties"][name] for feature in found})
            a, b = times[len(times) // 3], times[len(times) * 2 // 3]
            for form in DATETIMES:
                text = form.format(a=a, b=b)
                first, _, last = text.partition("/") if "/" in text else (text, "", text)
                wanted = [
                    feature["id"]
                    for feature in found
                    if (first in ("", "..") or feature["properties"][name] >= first)
                    and (last in ("", "..") or feature["properties"][name] <= last)
                ]
                assert ids(await features(api, collection, datetime=text)) == wanted, (collection, text)
            one = datetime.fromisoformat(a).astimezone().isoformat()  # with another offset
            assert await features(api, collection, datetime=one)
            assert await features(api, collection, datetime="1999-01-01T00:00:00Z") == []
        assert len(await features(api, "ul.zones", datetime="1999-01-01T00:00:00Z")) == 4


async def test_filters(tmp_path: Path) -> None:
    """CQL2 text, CQL2 JSON and properties select the same features, together with all other parameters."""
    async with features_api(tmp_path) as api:
        library = {"op": "=", "args": [{"property": "zone"}, "library"]}
        for collection in COLLECTIONS[:3]:
            found = await features(api, collection)
            wanted = [each["id"] for each in found if each["properties"]["zone"] == "library"]
            assert wanted
            assert ids(await features(api, collection, filter="zone = 'library'")) == wanted
            as_json = {"filter": json.dumps(library), "filter-lang": "cql2-json"}
            assert ids(await features(api, collection, **as_json)) == wanted
            assert ids(await features(api, collection, zone="library")) == wanted
            assert await features(api, collection, zone="library", filter="zone <> 'library'") == []
        inside = "S_INTERSECTS(geometry, BBOX(-8.5721, 52.6719, -8.5719, 52.67215)) AND acc < 10"
        assert len(await features(api, "ul.fixes", filter=inside)) == 2
        assert len(await features(api, "ul.fixes", filter=inside, limit=1)) == 1
        assert len(await features(api, "ul.fixes", kind="person", device=f"{3:016x}")) == 1
        assert await features(api, "ul.fixes", kind="vehicle") == []
        busy = await features(api, "ul.counts", filter="person_count >= 7 AND person_count < 100")
        assert ids(busy) == ["library"]
        at = busy[0]["properties"]["at"]
        assert len(await features(api, "ul.counts", filter=f"at >= TIMESTAMP('{at}')", person_count=412)) == 1


async def test_invalid_requests(tmp_path: Path) -> None:
    """Unknown and invalid parameters are 400 with the reason, unknown resources 404, other methods 405."""
    async with features_api(tmp_path) as api:
        for collection, (name, values) in itertools.product(COLLECTIONS, INVALID.items()):
            for value in values:
                path = f"/ogc/collections/{collection}/items"
                answer = await api.get(path, params={name: value})
                assert answer.status_code == 400, (collection, name, value, answer.text)
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["errors"][0]["parameter"].split(",")[0] in (name, "filter")
        for path in ("", "/", "/api", "/conformance", "/collections", "/collections/ul.zones"):
            assert (await api.get(f"/ogc{path}", params={"unknown": "1"})).status_code == 400, path
        long_reason = {"reason": "x" * 201}
        answer = await api.get("/ogc/collections/ul.fixes/items", params=long_reason)
        assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (400, "reason")
        doubled = await api.get("/ogc/collections/ul.zones/items?limit=1&limit=2")
        assert doubled.status_code == 400
        for path in (
            "nothing",
            "ul.nothing",
            "moon.zones",
            "ul.zones/items/moon",
            "ul.history/items/x@y",
            "ul.fixes/items/1",
        ):
            assert (await api.get(f"/ogc/collections/{path}")).status_code == 404, path
        assert (await api.http.post("/ogc/collections")).status_code == 405
        head = await api.http.head("/ogc/collections/ul.zones/items")
        assert (head.status_code, head.content) == (200, b"")


async def test_the_api_definition(tmp_path: Path) -> None:
    """The definition is valid OpenAPI 3.0 without remote references; all paths and parameters in it exist."""
    from openapi_spec_validator import OpenAPIV30SpecValidator  # noqa: PLC0415

    async with features_api(tmp_path) as api:
        definition = await api.json("/ogc/api")
        OpenAPIV30SpecValidator(definition).validate()
        text = json.dumps(definition)
        assert set(re.findall(r'"\$ref": "(.)', text)) == {"#"}
        assert definition["servers"] == [{"url": f"{api.base}/ogc"}]
        collections = {path.split("/")[2] for path in definition["paths"] if path.startswith("/collections/")}
        assert collections == set(COLLECTIONS)
        values = {
            "bbox": "-9,52,-8,53",
            "datetime": "../..",
            "limit": "2",
            "filter": "TRUE",
            "cursor": "99999999999999999.0",
            "reason": "a test",
        }
        for path, item in definition["paths"].items():
            operation = item["get"]
            assert {"200", "400", "401", "404", "500"} <= operation["responses"].keys()
            url = path
            for parameter in operation["parameters"]:
                if parameter["in"] == "path":
                    collection = path.split("/")[2]
                    url = path.replace("{featureId}", str(ids(await features(api, collection))[0]))
            assert (await api.get(f"/ogc{url}")).status_code == 200, url
            for parameter in operation["parameters"]:
                schema, name = parameter["schema"], parameter["name"]
                if parameter["in"] == "query":
                    of_type = {"string": iso(1_795_525_200.0), "integer": "1", "number": "1"}
                    value = schema.get("enum", [values.get(name, of_type.get(schema["type"]))])[0]
                    answer = await api.get(f"/ogc{url}", params={name: value})
                    assert answer.status_code == 200, (url, name, value, answer.text)
        items = definition["paths"]["/collections/ul.counts/items"]["get"]
        by_name = {each["name"]: each for each in items["parameters"]}
        assert by_name["limit"]["schema"] == {
            "type": "integer",
            "minimum": 1,
            "maximum": 10_000,
            "default": 1000,
        }
        for name, explode in (("bbox", False), ("datetime", True), ("limit", True)):
            parameter = by_name[name]
            assert (parameter["in"], parameter["required"], parameter["style"]) == ("query", False, "form")
            assert parameter["explode"] is explode


async def test_flatgeobuf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`f=fgb` has the same features with typed columns; without pyogrio it is 501 with the remedy."""
    import pyogrio  # noqa: PLC0415

    async with features_api(tmp_path) as api:
        for collection in COLLECTIONS:
            found = {feature["id"]: feature for feature in await features(api, collection)}
            answer = await api.get(f"/ogc/collections/{collection}/items?f=fgb&limit=1000")
            assert answer.headers["content-type"] == "application/flatgeobuf"
            _, _, shapes, values = pyogrio.raw.read(answer.content)
            assert set(values[0]) == {str(id_) for id_ in found}
            for shape, id_ in zip(shapes, values[0], strict=True):
                geometry = shapely.from_geojson(json.dumps(found[id_]["geometry"]))
                assert shapely.equals(shapely.from_wkb(shape), geometry)
        page = await api.get("/ogc/collections/ul.zones/items?f=fgb&limit=1")
        assert 'f=fgb>; rel="next"' in page.headers["link"]
        monkeypatch.setitem(__import__("sys").modules, "pyogrio.raw", None)
        missing = await api.get("/ogc/collections/ul.zones/items?f=fgb")
        assert (missing.status_code, missing.json()["type"]) == (501, "/problems/format-unavailable")
        assert "headcount[analysis]" in missing.json()["detail"]

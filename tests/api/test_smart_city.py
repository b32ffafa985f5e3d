"""NGSI-LD entities and SpaceAPI: the shapes of the data models, and the counts of `/v1`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema

from api_fixture import open_api, site_with
from headcount.counting.site import Site
from headcount.counting.site_file import parse_site

ENTITIES = "/v1/sites/ul/ngsi-ld/entities"
_TEXT, _COUNT = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}
_TIME = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"}
_GEOMETRY = {
    "type": "object",
    "required": ["type", "coordinates"],
    "properties": {"type": {"enum": ["Polygon", "MultiPolygon"]}, "coordinates": {"type": "array"}},
}
#: The attributes of Smart Data Models (CrowdFlowObserved 0.0.3, OffStreetParking 0.1.3; CC BY 4.0) that are used,
#: with their types and required ones, written from their specifications; then our own attributes.
_MODELS: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "CrowdFlowObserved": (
        "dataModel.Transportation",
        ["id", "type", "dateObserved"],
        {
            "dateObserved": _TIME,
            "peopleCount": _COUNT,
            **dict.fromkeys(
                ("peopleCountLow", "peopleCountHigh", "peopleCountBelow", "peopleCapacity"), _COUNT
            ),
        },
    ),
    "OffStreetParking": (
        "dataModel.Parking",
        ["id", "type", "location"],
        {
            "observationDateTime": _TIME,
            **dict.fromkeys(("occupiedSpotNumber", "availableSpotNumber", "totalSpotNumber"), _COUNT),
            **dict.fromkeys((f"occupiedSpotNumber{bound}" for bound in ("Low", "High", "Below")), _COUNT),
        },
    ),
}
#: The requirements of SpaceAPI 15 on the members that are used, written from its documentation.
SPACE_API = {
    "type": "object",
    "required": ["api_compatibility", "space", "logo", "url", "contact"],
    "additionalProperties": False,
    "properties": {
        "api_compatibility": {"type": "array", "items": _TEXT, "contains": {"const": "15"}},
        "space": _TEXT,
        "logo": {"type": "string", "pattern": "^https?://"},
        "url": {"type": "string", "pattern": "^https?://"},
        "contact": {"type": "object"},
        "location": {
            "type": "object",
            "required": ["lat", "lon"],
            "properties": {"lat": {"type": "number"}, "lon": {"type": "number"}, "timezone": _TEXT},
        },
        "sensors": {
            "type": "object",
            "properties": {
                "people_now_present": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["value"],
                        "properties": {
                            "value": _COUNT,
                            "location": _TEXT,
                            "name": _TEXT,
                            "lastchange": {"type": "number"},
                        },
                        "additionalProperties": False,
                    },
                }
            },
        },
    },
}


def schema_of(type_: str, *, plain: bool) -> dict[str, Any]:
    """The schema of an entity, with plain values or with attributes as NGSI-LD (ETSI GS CIM 009) normalizes them."""
    model, required, attributes = _MODELS[type_]
    context = {
        "type": "array",
        "prefixItems": [
            {"const": f"https://raw.githubusercontent.com/smart-data-models/{model}/master/context.jsonld"},
            {"type": "object", "additionalProperties": {"type": "string", "pattern": "^urn:headcount:"}},
        ],
        "minItems": 2,
        "maxItems": 2,
    }

    def normalized(value: dict[str, Any]) -> dict[str, Any]:
        if value is _TIME:
            value = {
                "required": ["@type", "@value"],
                "properties": {"@type": {"const": "DateTime"}, "@value": _TIME},
            }
        type_of_attribute = "GeoProperty" if value is _GEOMETRY else "Property"
        return {
            "type": "object",
            "required": ["type", "value"],
            "properties": {"type": {"const": type_of_attribute}, "value": value},
        }

    values = {"name": _TEXT, "location": _GEOMETRY, **attributes}
    shown = values if plain else {name: normalized(value) for name, value in values.items()}
    fixed = {
        "id": {"type": "string", "pattern": f"^urn:ngsi-ld:{type_}:ul:[A-Za-z0-9_-]+$"},
        "type": {"const": type_},
        "@context": context,
    }
    return {
        "type": "object",
        "required": [*required, "@context"],
        "properties": {**fixed, **shown},
        "additionalProperties": False,
    }


def site_with_car_park() -> Site:
    """The site of the tests, where a zone is a car park with a capacity."""
    geojson = site_with(3).geojson
    for feature in geojson["features"]:
        if feature["properties"]["id"] == "z1":
            feature["properties"] |= {"type": "car_park", "capacity": {"vehicle": 40}}
    return parse_site(geojson, "test")


async def test_entities(tmp_path: Path) -> None:
    """Entities are as their data models define them in both forms, and have the exact counts with their bounds."""
    async with open_api(tmp_path, site=site_with_car_park()) as api:
        await api.count({"site": (412, 33), "library": (7, 0), "z1": (2, 30)})
        for type_, size in (("CrowdFlowObserved", 4), ("OffStreetParking", 1)):
            for options in ("normalized", "keyValues"):
                answer = await api.get(ENTITIES, params={"type": type_, "options": options})
                assert answer.headers["content-type"] == "application/ld+json"
                entities = answer.json()
                assert len(entities) == size
                own = set()
                for entity in entities:
                    jsonschema.validate(entity, schema_of(type_, plain=options == "keyValues"))
                    own |= {name for name in entity if name.endswith(("Low", "High"))}
                assert own <= entities[0]["@context"][1].keys()
        crowd = (await api.json(f"{ENTITIES}?type=CrowdFlowObserved&options=keyValues"))[1]
        assert (crowd["peopleCount"], crowd["peopleCountLow"], crowd["peopleCountHigh"]) == (7, 6, 8)
        (parking,) = await api.json(f"{ENTITIES}?type=OffStreetParking&options=keyValues")
        spots = [parking[f"{name}SpotNumber"] for name in ("occupied", "available", "total")]
        assert spots == [30, 10, 40]
        assert (await api.get(f"{ENTITIES}?type=Moon")).status_code == 422


async def test_space_api(tmp_path: Path) -> None:
    """The site is a valid SpaceAPI document with the people in each zone; other origins may read it."""
    async with open_api(tmp_path) as api:
        at = await api.count({"site": (412, 3), "library": (7, 0)})
        answer = await api.get("/v1/sites/ul/spaceapi.json")
        assert answer.headers["access-control-allow-origin"] == "*"
        jsonschema.validate(answer.json(), SPACE_API)
        sensors = answer.json()["sensors"]["people_now_present"]
        assert {each["name"]: each["value"] for each in sensors} == {
            "site": 412,
            "library": 7,
            "z1": 0,
            "z2": 0,
        }
        assert {each["lastchange"] for each in sensors} == {int(at)}

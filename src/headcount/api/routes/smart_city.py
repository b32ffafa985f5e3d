"""Counts in the data models of others: NGSI-LD entities (Smart Data Models) and SpaceAPI."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import shapely
from fastapi import APIRouter, Query, Request

from headcount.access.roles import Caller
from headcount.api.counts_lookup import counts_at
from headcount.api.live_sites import ServedSite
from headcount.api.media_types import Json, JsonLd
from headcount.api.middleware.identity import AnyCaller
from headcount.api.middleware.site_access import SiteInPath
from headcount.api.public_url import checked_base_url
from headcount.api.schemas import smart_city
from headcount.api.state import ApiState, State
from headcount.counting.site import Zone
from headcount.messages.topics import Kind

router = APIRouter(prefix="/v1", tags=["counts"])
_MODELS = "https://raw.githubusercontent.com/smart-data-models"
#: The JSON-LD contexts of the data models, and our own attributes.
_CONTEXTS: dict[str, list[str | dict[str, str]]] = {
    type_: [f"{_MODELS}/{model}/master/context.jsonld", {name: f"urn:headcount:{name}" for name in own}]
    for type_, model, own in (
        (
            "CrowdFlowObserved",
            "dataModel.Transportation",
            ("peopleCountLow", "peopleCountHigh", "peopleCountBelow", "peopleCapacity"),
        ),
        (
            "OffStreetParking",
            "dataModel.Parking",
            ("occupiedSpotNumberLow", "occupiedSpotNumberHigh", "occupiedSpotNumberBelow"),
        ),
    )
}
_FAILURES = ["no-counts-yet"]


@router.get(
    "/sites/{site}/ngsi-ld/entities",
    summary="Get the counts as NGSI-LD entities",
    response_class=JsonLd,
    response_model=list[smart_city.NgsiEntity],
    response_description="An entity for each zone",
    openapi_extra={"x-problems": _FAILURES},
)
async def list_ngsi_entities(
    site: SiteInPath,
    state: State,
    caller: AnyCaller,
    type_: Annotated[
        Literal["CrowdFlowObserved", "OffStreetParking"],
        Query(alias="type", description="People in zones, or vehicles in car parks."),
    ],
    options: Annotated[
        Literal["normalized", "keyValues"],
        Query(description="Attributes as objects with their type, or as plain values."),
    ] = "normalized",
) -> JsonLd:
    """Return the newest counts as entities of Smart Data Models.

    The bounds of a count are the own attributes `…Low` and `…High`. Without the scope `counts:exact`, a small count
    is missing, and `…Below` is the number that it is below.
    """
    at, counted = await _counts(state, site, caller)
    entities = [
        _entity(site.id, zone, type_, options, attributes)
        for zone, person, vehicle in counted
        for attributes in (
            _crowd(at, zone, person) if type_ == "CrowdFlowObserved" else _parking(at, zone, vehicle),
        )
        if attributes
    ]
    return JsonLd(entities)


@router.get(
    "/sites/{site}/spaceapi.json",
    summary="Get the counts of people as SpaceAPI",
    response_model=smart_city.SpaceApiResponse,
    response_description="The site and the people in its zones",
    openapi_extra={"x-problems": _FAILURES},
)
async def get_space_api(site: SiteInPath, request: Request, state: State, caller: AnyCaller) -> Json:
    """Return the site as SpaceAPI 15, with a sensor `people_now_present` for each zone; hidden counts are missing."""
    at, counted = await _counts(state, site, caller)
    base = checked_base_url(request, state.settings)
    instant = int(datetime.fromisoformat(at).timestamp())
    sensors = [
        {"value": person["count"], "name": zone.id, "location": zone.name, "lastchange": instant}
        for zone, person, _ in counted
        if isinstance(person["count"], int)
    ]
    place = site.site
    location = {"lat": place.lat0_deg, "lon": place.lon0_deg, "timezone": place.timezone}
    document = {
        "api_compatibility": ["15"],
        "space": place.name,
        "logo": f"{base}/favicon.svg",
        "url": f"{base}/",
        "location": location,
        "contact": {},
        "sensors": {"people_now_present": sensors},
    }
    return Json(document)


_Counted = tuple[Zone, dict[str, Any], dict[str, Any]]
_Attribute = tuple[str, Any]


async def _counts(state: ApiState, site: ServedSite, caller: Caller) -> tuple[str, list[_Counted]]:
    """Return the instant of the newest counts, and those of people and vehicles in each zone."""
    body = await counts_at(state, site, caller, None)
    zones = {zone.id: zone for zone in site.site.zones}
    counted = [msgspec.json.decode(raw) for raw in body.zones]
    return body.at, [
        (zones[each["zone"]], each["person"], each["vehicle"]) for each in counted if each["zone"] in zones
    ]


def _crowd(at: str, zone: Zone, person: dict[str, Any]) -> list[_Attribute]:
    return [
        ("dateObserved", {"@type": "DateTime", "@value": at}),
        *_count("peopleCount", person),
        *_known(peopleCapacity=_capacity(zone, "person")),
    ]


def _parking(at: str, zone: Zone, vehicle: dict[str, Any]) -> list[_Attribute]:
    if zone.type != "car_park":
        return []
    count, capacity = vehicle["count"], _capacity(zone, "vehicle")
    known = isinstance(count, int) and capacity is not None
    return [
        ("observationDateTime", {"@type": "DateTime", "@value": at}),
        *_count("occupiedSpotNumber", vehicle),
        *_known(totalSpotNumber=capacity, availableSpotNumber=max(0, capacity - count) if known else None),
    ]


def _count(name: str, numbers: dict[str, Any]) -> Iterator[_Attribute]:
    count = numbers["count"]
    if isinstance(count, str):
        yield f"{name}Below", int(count.removeprefix("<"))
        return
    bounds = {f"{name}Low": numbers["low"], f"{name}High": numbers["high"]}
    yield from _known(**{name: count, **bounds})


def _capacity(zone: Zone, kind: Kind) -> int | None:
    return zone.capacity[0 if kind == "person" else 1]


def _known(**values: Any) -> list[_Attribute]:
    return [(name, value) for name, value in values.items() if value is not None]


def _entity(site: str, zone: Zone, type_: str, options: str, attributes: list[_Attribute]) -> dict[str, Any]:
    geometry = msgspec.Raw(shapely.to_geojson(zone.geometry).encode())
    plain = options == "keyValues"
    entity: dict[str, Any] = {
        "id": f"urn:ngsi-ld:{type_}:{site}:{zone.id}",
        "type": type_,
        "name": zone.name if plain else _property(zone.name),
        "location": geometry if plain else {"type": "GeoProperty", "value": geometry},
    }
    for name, value in attributes:
        is_time = isinstance(value, dict)
        entity[name] = (value["@value"] if is_time else value) if plain else _property(value)
    return {**entity, "@context": _CONTEXTS[type_]}


def _property(value: Any) -> dict[str, Any]:
    return {"type": "Property", "value": value}

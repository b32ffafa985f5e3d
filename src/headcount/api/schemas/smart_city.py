"""Counts in the data models of others: NGSI-LD entities and SpaceAPI."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from headcount.api.schemas.base import OpenSchema, Schema


class NgsiEntity(OpenSchema):
    """An NGSI-LD entity with its attributes, which depend on its type."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    id: str
    type: Literal["CrowdFlowObserved", "OffStreetParking"]
    context: list[str | dict[str, str]] = Field(alias="@context")


class SpaceLocation(Schema):
    """Where the site is."""

    lat: float
    lon: float
    timezone: str


class PeopleSensor(Schema):
    """The count of people in a zone."""

    value: int
    name: str = Field(description="The zone's id.")
    location: str = Field(description="The zone's name.")
    lastchange: int = Field(description="The instant of the count, in Unix seconds.")


class SpaceSensors(Schema):
    """Counts of zones; hidden ones are missing."""

    people_now_present: list[PeopleSensor]


class SpaceApiResponse(Schema):
    """A site as SpaceAPI 15 describes a place."""

    api_compatibility: list[str]
    space: str
    logo: str
    url: str
    location: SpaceLocation
    contact: dict[str, Any]
    sensors: SpaceSensors

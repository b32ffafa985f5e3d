"""The API definition: OpenAPI 3.0, complete in itself, with one path for each collection that the caller may read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import metadata
from typing import Any

from headcount.api.ogc.collection import Collection
from headcount.api.ogc.documents import (
    DESCRIPTION,
    FLATGEOBUF,
    GEOJSON,
    HTML,
    JSON,
    OPENAPI,
    SCHEMA_JSON,
    SCHEMAS,
    TITLE,
)
from headcount.api.ogc.feature_table import Property
from headcount.api.ogc.parameters import ITEMS, PAGE_FORMAT, REASON, Parameter

_PROBLEMS = {
    "400": "A parameter is unknown or not valid.",
    "401": "The token is not valid, or one is required.",
    "403": "The right is missing.",
    "404": "There is no such resource.",
    "429": "Too many requests.",
    "500": "Internal error, or the history is unreadable.",
    "501": "The format is not available here.",
    "503": "No counts yet, or too many queries.",
}
_LINKS = {"type": "array", "items": {"$ref": "#/components/schemas/link"}}


def _object(required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required.split(), "properties": properties}


_TEXT = {"type": "string"}
_COMPONENTS: dict[str, Any] = {
    "link": _object("href", href=_TEXT, rel=_TEXT, type=_TEXT, title=_TEXT),
    "landingPage": _object("links", title=_TEXT, description=_TEXT, links=_LINKS),
    "conformance": _object("conformsTo", conformsTo={"type": "array", "items": _TEXT}),
    "extent": {
        "type": "object",
        "properties": {
            "spatial": _object(
                "bbox",
                bbox={
                    "type": "array",
                    "minItems": 1,
                    "items": {"type": "array", "minItems": 4, "maxItems": 6, "items": {"type": "number"}},
                },
                crs=_TEXT,
            ),
            "temporal": _object(
                "interval",
                interval={
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "array",
                        "minItems": 2,
                        "maxItems": 2,
                        "items": {"type": "string", "format": "date-time", "nullable": True},
                    },
                },
            ),
        },
    },
    "collection": _object(
        "id links",
        id=_TEXT,
        title=_TEXT,
        description=_TEXT,
        links=_LINKS,
        extent={"$ref": "#/components/schemas/extent"},
        itemType=_TEXT,
        crs={"type": "array", "items": _TEXT},
    ),
    "collections": _object(
        "links collections",
        links=_LINKS,
        collections={"type": "array", "items": {"$ref": "#/components/schemas/collection"}},
    ),
    "geometry": _object(
        "type coordinates",
        type={"type": "string", "enum": ["Point", "Polygon", "MultiPolygon"]},
        coordinates={"type": "array", "items": {}},
    ),
    "queryables": _object("type properties", type=_TEXT, properties={"type": "object"}),
    "problem": _object(
        "type title status", type=_TEXT, title=_TEXT, status={"type": "integer"}, detail=_TEXT
    ),
}


def document(collections: Sequence[Collection], base: str) -> dict[str, Any]:
    """Return the API definition."""
    paths: dict[str, Any] = {
        "/": _get("getLandingPage", "Landing page", _answer("landingPage")),
        "/api": _get("getApi", "This API definition", {OPENAPI: {"schema": {"type": "object"}}, **_page()}),
        "/conformance": _get("getConformance", "Conformance classes", _answer("conformance")),
        "/collections": _get("getCollections", "Collections", _answer("collections")),
    }
    schemas = dict(_COMPONENTS)
    for collection in collections:
        schemas |= _feature_schemas(collection)
        paths |= _collection_paths(collection)
    return {
        "openapi": "3.0.3",
        "info": {"title": TITLE, "description": DESCRIPTION, "version": metadata.version("headcount")},
        "servers": [{"url": base}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _collection_paths(collection: Collection) -> dict[str, Any]:
    id_, title = collection.id, collection.description
    path, schema = f"/collections/{id_}", f"features.{id_}"
    reason = [REASON] if collection.needs_reason else []
    filters = [_property_parameter(each) for each in collection.properties]
    items = _get(
        f"getItems.{id_}",
        title,
        {
            **_content(GEOJSON, schema),
            **_page(),
            FLATGEOBUF: {"schema": {"type": "string", "format": "binary"}},
        },
        [*ITEMS, *filters, *reason],
    )
    item = _get(
        f"getItem.{id_}",
        f"One feature. {title}",
        {**_content(GEOJSON, f"feature.{id_}"), **_page()},
        [PAGE_FORMAT, *reason],
    )
    item["get"]["parameters"].insert(
        0, {"name": "featureId", "in": "path", "required": True, "schema": {"type": "string"}}
    )
    if collection.needs_reason:
        for each in (items, item):
            each["get"]["security"] = [{"token": []}]
    return {
        path: _get(f"getCollection.{id_}", f"Description of the collection. {title}", _answer("collection")),
        f"{path}/queryables": _get(
            f"getQueryables.{id_}",
            "Properties for filters",
            {**_content(SCHEMA_JSON, "queryables"), **_page()},
        ),
        f"{path}/items": items,
        f"{path}/items/{{featureId}}": item,
    }


def _feature_schemas(collection: Collection) -> dict[str, Any]:
    properties = {
        name: {"description": description, "nullable": True, **SCHEMAS[type_]}
        for name, type_, description in collection.properties
    }
    feature = _object(
        "type id geometry properties",
        type={"type": "string", "enum": ["Feature"]},
        id=_TEXT,
        geometry={"$ref": "#/components/schemas/geometry"},
        properties={"type": "object", "properties": properties},
        links=_LINKS,
    )
    features = _object(
        "type features",
        type={"type": "string", "enum": ["FeatureCollection"]},
        links=_LINKS,
        timeStamp={"type": "string", "format": "date-time"},
        numberMatched={"type": "integer", "minimum": 0},
        numberReturned={"type": "integer", "minimum": 0},
        features={"type": "array", "items": {"$ref": f"#/components/schemas/feature.{collection.id}"}},
    )
    return {f"feature.{collection.id}": feature, f"features.{collection.id}": features}


def _property_parameter(property_: Property) -> Parameter:
    return Parameter(
        property_.name, f"Only features with this value. {property_.description}", SCHEMAS[property_.type]
    )


def _get(
    id_: str, summary: str, content: dict[str, Any], parameters: Iterable[Parameter] = (PAGE_FORMAT,)
) -> dict[str, Any]:
    problem = _content("application/problem+json", "problem")
    responses = {status: {"description": text, "content": problem} for status, text in _PROBLEMS.items()}
    operation = {
        "operationId": id_,
        "summary": summary,
        "parameters": [_parameter(each) for each in parameters],
        "responses": {"200": {"description": "The answer", "content": content}, **responses},
    }
    return {"get": operation}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "query",
        "required": False,
        "description": parameter.description,
        "schema": parameter.schema,
        "style": "form",
        "explode": parameter.schema.get("type") != "array",
    }


def _answer(schema: str) -> dict[str, Any]:
    return {**_content(JSON, schema), **_page()}


def _content(media_type: str, schema: str) -> dict[str, Any]:
    return {media_type: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _page() -> dict[str, Any]:
    return {HTML: {"schema": {"type": "string"}}}

"""The answers that OGC 17-069r4 requires, as JSON schemas written from its text (clauses 7.2 to 7.16 and 8.3)."""

from __future__ import annotations

from typing import Any

import jsonschema

_LINK = {
    "type": "object",
    "required": ["href", "rel"],
    "properties": {
        "href": {"type": "string", "pattern": "^https?://"},
        "rel": {"type": "string", "minLength": 1},
        "type": {"type": "string", "pattern": "^[a-z]+/[^ ]+$"},
        "title": {"type": "string"},
        "hreflang": {"type": "string"},
        "length": {"type": "integer"},
    },
}
_LINKS = {"type": "array", "minItems": 1, "items": _LINK}
_POSITION = {"type": "array", "minItems": 2, "maxItems": 3, "items": {"type": "number"}}
_RING = {"type": "array", "minItems": 4, "items": _POSITION}
_POLYGON = {"type": "array", "minItems": 1, "items": _RING}
_COORDINATES = {
    "Point": _POSITION,
    "Polygon": _POLYGON,
    "MultiPolygon": {"type": "array", "minItems": 1, "items": _POLYGON},
}
_GEOMETRY = {
    "oneOf": [
        {
            "type": "object",
            "required": ["type", "coordinates"],
            "properties": {"type": {"const": type_}, "coordinates": coordinates},
        }
        for type_, coordinates in _COORDINATES.items()
    ]
}
_TIME = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"}
_FEATURE = {
    "type": "object",
    "required": ["type", "geometry", "properties"],
    "properties": {
        "type": {"const": "Feature"},
        "id": {"type": ["string", "integer"]},
        "geometry": _GEOMETRY,
        "properties": {"type": "object"},
        "links": _LINKS,
    },
}
_COLLECTION = {
    "type": "object",
    "required": ["id", "links"],
    "properties": {
        "id": {"type": "string"},
        "title": {"type": "string"},
        "description": {"type": "string"},
        "links": _LINKS,
        "itemType": {"const": "feature"},
        "crs": {"type": "array", "items": {"type": "string"}},
        "extent": {
            "type": "object",
            "properties": {
                "spatial": {
                    "type": "object",
                    "required": ["bbox"],
                    "properties": {
                        "bbox": {
                            "type": "array",
                            "minItems": 1,
                            "items": {
                                "type": "array",
                                "oneOf": [{"minItems": 4, "maxItems": 4}, {"minItems": 6, "maxItems": 6}],
                                "items": {"type": "number"},
                            },
                        },
                        "crs": {"const": "http://www.opengis.net/def/crs/OGC/1.3/CRS84"},
                    },
                },
                "temporal": {
                    "type": "object",
                    "required": ["interval"],
                    "properties": {
                        "interval": {
                            "type": "array",
                            "minItems": 1,
                            "items": {
                                "type": "array",
                                "minItems": 2,
                                "maxItems": 2,
                                "items": {"anyOf": [_TIME, {"type": "null"}]},
                            },
                        }
                    },
                },
            },
        },
    },
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "landing page": {
        "type": "object",
        "required": ["links"],
        "properties": {"title": {"type": "string"}, "description": {"type": "string"}, "links": _LINKS},
    },
    "conformance": {
        "type": "object",
        "required": ["conformsTo"],
        "properties": {"conformsTo": {"type": "array", "items": {"type": "string", "format": "uri"}}},
    },
    "collections": {
        "type": "object",
        "required": ["links", "collections"],
        "properties": {"links": _LINKS, "collections": {"type": "array", "items": _COLLECTION}},
    },
    "collection": _COLLECTION,
    "features": {
        "type": "object",
        "required": ["type", "features"],
        "properties": {
            "type": {"const": "FeatureCollection"},
            "features": {"type": "array", "items": _FEATURE},
            "links": _LINKS,
            "timeStamp": _TIME,
            "numberMatched": {"type": "integer", "minimum": 0},
            "numberReturned": {"type": "integer", "minimum": 0},
        },
    },
    "feature": _FEATURE,
    "queryables": {
        "type": "object",
        "required": ["$schema", "$id", "type", "properties"],
        "properties": {"type": {"const": "object"}, "properties": {"type": "object", "minProperties": 1}},
    },
}


def check(name: str, document: Any) -> None:
    """Fail where a document is not what the standard requires."""
    jsonschema.validate(document, SCHEMAS[name])

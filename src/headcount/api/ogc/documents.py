"""The documents that describe the API: landing page, conformance, collections, queryables."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from typing import Any

from headcount.api.ogc.collection import Collection, Page
from headcount.api.ogc.feature_table import PropertyType
from headcount.api.ogc.parameters import CRS84, MAX_LIMIT
from headcount.messages.times import iso

GEOJSON, HTML, FLATGEOBUF = "application/geo+json", "text/html", "application/flatgeobuf"
JSON, SCHEMA_JSON = "application/json", "application/schema+json"
OPENAPI = "application/vnd.oai.openapi+json;version=3.0"
TITLE = "headcount"
DESCRIPTION = "Counts of people and vehicles in every zone, as features."
_QUERYABLES = "http://www.opengis.net/def/rel/ogc/1.0/queryables"
_FEATURES, _FILTERING = (f"http://www.opengis.net/spec/ogcapi-features-{part}/1.0/conf" for part in (1, 3))
_CQL2 = "http://www.opengis.net/spec/cql2/1.0/conf"
CONFORMANCE = (
    *(f"{_FEATURES}/{name}" for name in ("core", "geojson", "html", "oas30")),
    *(
        f"{_FILTERING}/{name}"
        for name in ("filter", "features-filter", "queryables", "queryables-query-parameters")
    ),
    *(
        f"{_CQL2}/{name}"
        for name in (
            "cql2-text",
            "cql2-json",
            "basic-cql2",
            "advanced-comparison-operators",
            "case-insensitive-comparison",
            "basic-spatial-functions",
            "basic-spatial-functions-plus",
            "spatial-functions",
            "temporal-functions",
            "property-property",
            "arithmetic",
        )
    ),
)
#: The JSON schemas of properties.
SCHEMAS: dict[PropertyType, dict[str, Any]] = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "time": {"type": "string", "format": "date-time"},
}


def link(href: str, rel: str, type_: str, title: str) -> dict[str, str]:
    """Return a link."""
    return {"href": href, "rel": rel, "type": type_, "title": title}


def own_links(url: str, shown: str, formats: dict[str, str]) -> list[dict[str, str]]:
    """Return the links of an answer to itself in all its formats (`f` → media type); `shown` is the one in use."""
    mark = "&" if "?" in url else "?"
    return [
        link(
            f"{url}{mark}f={name}",
            "self" if name == shown else "alternate",
            type_,
            "This document" if name == shown else f"This document as {type_}",
        )
        for name, type_ in formats.items()
    ]


def landing_page(base: str) -> dict[str, Any]:
    """Return the landing page, without its links to itself."""
    links = [
        link(f"{base}/api", "service-desc", OPENAPI, "API definition (OpenAPI 3.0)"),
        link(f"{base}/api?f=html", "service-doc", HTML, "API documentation"),
        link(f"{base}/conformance", "conformance", JSON, "Conformance classes"),
        link(f"{base}/collections", "data", JSON, "Collections"),
    ]
    return {"title": TITLE, "description": DESCRIPTION, "links": links}


def collection_document(collection: Collection, base: str) -> dict[str, Any]:
    """Return the description of a collection, without its links to itself."""
    url = f"{base}/collections/{collection.id}"
    items = ((GEOJSON, "json", "GeoJSON"), (HTML, "html", "HTML"), (FLATGEOBUF, "fgb", "FlatGeobuf"))
    extent: dict[str, Any] = {"spatial": {"bbox": [collection.bounds], "crs": CRS84}}
    if collection.time is not None:
        extent["temporal"] = {"interval": [[None, None]]}  # up to now
    return {
        "id": collection.id,
        "title": f"{collection.title}: {collection.site.site.name}",
        "description": collection.description,
        "itemType": "feature",
        "extent": extent,
        "crs": [CRS84],
        "links": [
            *(link(f"{url}/items?f={f}", "items", type_, f"Features as {name}") for type_, f, name in items),
            link(f"{url}/queryables", _QUERYABLES, SCHEMA_JSON, "Properties for filters"),
        ],
    }


def queryables(collection: Collection, base: str) -> dict[str, Any]:
    """Return the properties that filters may use, as a JSON schema."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{base}/collections/{collection.id}/queryables",
        "type": "object",
        "title": f"{collection.title}: {collection.site.site.name}",
        "properties": {
            "geometry": {"format": "geometry-any", "x-ogc-role": "primary-geometry"},
            **{
                name: {"title": name, "description": description, **SCHEMAS[type_]}
                for name, type_, description in collection.properties
            },
        },
        "additionalProperties": False,
    }


def items_document(page: Page, links: Sequence[dict[str, str]]) -> dict[str, Any]:
    """Return a page of features as GeoJSON."""
    matched = {} if page.matched is None else {"numberMatched": page.matched}
    return {
        "type": "FeatureCollection",
        "timeStamp": iso(time.time()),
        **matched,
        "numberReturned": len(page.features),
        "links": list(links),
        "features": page.features.features(),
    }


def html_page(document: dict[str, Any]) -> str:
    """Return a document as a page: its texts, its links, and its features as a table."""
    features = document.get("features", [document] if document.get("type") == "Feature" else [])
    title = escape(str(document.get("title") or document.get("id") or TITLE))
    parts = [f"<p>{escape(str(document.get('description', '')))}</p>", _link_list(document.get("links", []))]
    parts += [f"<p>{escape(name)}</p>" for name in document.get("conformsTo", [])]
    for inner in document.get("collections", []):
        parts += [f"<h2>{escape(inner['title'])}</h2>", _link_list(inner["links"])]
    for path, item in document.get("paths", {}).items():
        parts.append(f"<h2>GET {escape(path)}</h2><p>{escape(item['get']['summary'])}</p>")
    properties: dict[str, Any] = document.get("properties", {}) if not features else {}
    parts += [
        f"<p><b>{escape(name)}</b> {escape(each.get('description', ''))}</p>"
        for name, each in properties.items()
    ]
    if features:
        parts.append(_table(features[:MAX_LIMIT]))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{title}</title>'
        "<style>body{font:1rem/1.5 sans-serif;margin:2rem}td,th{padding:0 1rem 0 0;text-align:left}</style>"
        f"<h1>{title}</h1>{''.join(parts)}</html>"
    )


def _link_list(links: Sequence[dict[str, str]]) -> str:
    items = (f'<li><a href="{escape(each["href"])}">{escape(each["title"])}</a></li>' for each in links)
    return f"<ul>{''.join(items)}</ul>"


def _table(features: Sequence[dict[str, Any]]) -> str:
    names = list(features[0]["properties"])
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = (
        "".join(f"<td>{escape(str('' if v is None else v))}</td>" for v in each["properties"].values())
        for each in features
    )
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"

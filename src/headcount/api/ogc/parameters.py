"""Parameters of requests for features; anything unknown or invalid is a 400, as the standard requires."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import shapely
from starlette.datastructures import QueryParams

from headcount.api.ogc.cql2_filter import MAX_CHARS, Filter, box
from headcount.api.ogc.feature_table import FeatureTable, Property
from headcount.api.parameters import MAX_MOMENT_S, moment
from headcount.errors import QueryError

CRS84 = "http://www.opengis.net/def/crs/OGC/1.3/CRS84"
DEFAULT_LIMIT, MAX_LIMIT = 1000, 10_000
Format = Literal["json", "html", "fgb"]


class Parameter(NamedTuple):
    """A query parameter, as the API definition describes it (OpenAPI 3.0)."""

    name: str
    description: str
    schema: dict[str, Any]


_STRING = {"type": "string"}
BBOX = Parameter(
    "bbox",
    "west,south,east,north in degrees (WGS 84); west is greater than east across the 180th meridian. "
    "With heights, six numbers.",
    {
        "type": "array",
        "oneOf": [{"minItems": 4, "maxItems": 4}, {"minItems": 6, "maxItems": 6}],
        "items": {"type": "number"},
    },
)
DATETIME = Parameter(
    "datetime", "An instant (RFC 3339), or an interval: `start/end`, `start/..` or `../end`.", _STRING
)
LIMIT = Parameter(
    "limit",
    "Maximum number of features in the answer.",
    {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
)
FILTER = Parameter("filter", "A condition in CQL2.", {"type": "string", "maxLength": MAX_CHARS})
FILTER_LANG = Parameter(
    "filter-lang",
    "The encoding of `filter`.",
    {"type": "string", "enum": ["cql2-text", "cql2-json"], "default": "cql2-text"},
)
FILTER_CRS = Parameter(
    "filter-crs", "The reference system of `filter`.", {"type": "string", "enum": [CRS84], "default": CRS84}
)
CURSOR = Parameter("cursor", "Where a page begins; from a `next` link.", {"type": "string", "maxLength": 64})
REASON = Parameter(
    "reason",
    "The reason for reading exact positions; it goes into the audit log. The header Headcount-Reason is better.",
    {"type": "string", "minLength": 3, "maxLength": 200},
)
ITEMS_FORMAT = Parameter(
    "f",
    "The format: GeoJSON, HTML or FlatGeobuf; default: by the header Accept.",
    {"type": "string", "enum": ["json", "html", "fgb"]},
)
PAGE_FORMAT = Parameter(
    "f",
    "The format: JSON or HTML; default: by the header Accept.",
    {"type": "string", "enum": ["json", "html"]},
)
ITEMS = (BBOX, DATETIME, LIMIT, FILTER, FILTER_LANG, FILTER_CRS, CURSOR, ITEMS_FORMAT)


@dataclass(frozen=True, slots=True)
class ItemsQuery:
    """Which features are wanted."""

    limit: int = DEFAULT_LIMIT
    bbox: tuple[float, ...] | None = None  # west, south, east, north in degrees
    span_s: tuple[float, float] | None = None  # Unix seconds, both inclusive
    filter: Filter | None = None
    equals: Mapping[str, str | float] = field(default_factory=dict)
    cursor: str = ""

    def matches(self, features: FeatureTable, time: str | None) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which features are wanted; `time` names the property that `datetime` is about."""
        found = np.ones(len(features), np.bool_)
        if self.bbox is not None:
            found &= shapely.intersects(features.geometry, box(self.bbox))
        if self.span_s is not None and time is not None:
            at_s = features.columns[time].values
            found &= (self.span_s[0] <= at_s) & (at_s <= self.span_s[1])
        for name, value in self.equals.items():
            column = features.columns[name]
            found &= (column.values == value) & column.known
        if self.filter is not None:
            found &= self.filter.matches(features)
        return found


def check_names(given: QueryParams, known: Sequence[str]) -> None:
    """Check that each parameter exists and is given once.

    Raises:
        QueryError: for the first one that does not.
    """
    for name in given:
        if name not in known:
            raise QueryError(name[:64], f"no parameter has this name here; these do: {', '.join(known)}")
        if len(given.getlist(name)) > 1:
            raise QueryError(name, "is given more than once")


def format_of(given: QueryParams, accept: str, formats: Sequence[Format]) -> Format:
    """Return the format of an answer: as `f` states, else as the client prefers.

    Raises:
        QueryError: there is no such format here.
    """
    wanted = given.get("f")
    if wanted is not None:
        if wanted not in formats:
            raise QueryError("f", f"is not one of {', '.join(formats)}")
        return cast("Format", wanted)
    if "application/flatgeobuf" in accept and "fgb" in formats:
        return "fgb"
    return "html" if accept.startswith("text/html") else "json"


def items_query(given: QueryParams, properties: Sequence[Property]) -> ItemsQuery:
    """Return the query of a request for features.

    Raises:
        QueryError: a parameter is not valid.
    """
    by_name = {property_.name: property_ for property_ in properties}
    return ItemsQuery(
        limit=_limit(given.get("limit")),
        bbox=_bbox(given.get("bbox")),
        span_s=_span(given.get("datetime")),
        filter=_filter(given, properties),
        equals={name: _value(by_name[name], text) for name, text in given.items() if name in by_name},
        cursor=given.get("cursor", ""),
    )


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit() and int(text[:20]) >= 1):
        raise QueryError("limit", f"{text[:20]!r} is not a number from 1 to {MAX_LIMIT}")
    return min(int(text[:20]), MAX_LIMIT)  # larger ones mean the maximum (permission fc-limit-response-1)


def _bbox(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text[:400].split(","))
    except ValueError:
        numbers = ()
    box(numbers)
    half = len(numbers) // 2
    return numbers[:2] + numbers[half : half + 2]


def _span(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    start, slash, end = text[:200].partition("/")
    if not slash:
        at_s = _instant(text)
        return at_s, at_s
    first_s = 0.0 if start in ("", "..") else _instant(start)
    last_s = MAX_MOMENT_S if end in ("", "..") else _instant(end)
    if first_s > last_s:
        raise QueryError("datetime", "begins after its end")
    return first_s, last_s


def _instant(text: str) -> float:
    if "-" not in text[1:]:  # Unix seconds are not RFC 3339
        raise QueryError("datetime", "expected RFC 3339 with offset, 2026-11-24T13:00:00Z")
    try:
        return moment(text)
    except ValueError as error:
        raise QueryError("datetime", str(error)) from error


def _filter(given: QueryParams, properties: Sequence[Property]) -> Filter | None:
    language, crs = given.get("filter-lang", "cql2-text"), given.get("filter-crs", CRS84)
    if language not in ("cql2-text", "cql2-json"):
        raise QueryError("filter-lang", "is not one of cql2-text, cql2-json")
    if crs != CRS84:
        raise QueryError("filter-crs", f"is not {CRS84}")
    text = given.get("filter")
    return None if text is None else Filter(text, cast("Any", language), properties)


def _value(property_: Property, text: str) -> str | float:
    if property_.type == "string":
        return text
    try:
        value = moment(text) if property_.type == "time" else float(text)
    except ValueError as error:
        raise QueryError(property_.name, f"{text[:40]!r} is not a {property_.type}") from error
    if not math.isfinite(value):
        raise QueryError(property_.name, "is not finite")
    return value

"""CQL2 filters (OGC 21-065r2) over columns of features; pure.

The library `cql2` parses both encodings into one tree, which is evaluated here over whole columns. Logic has three
values, as the standard requires: a comparison with null is neither true nor false.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import cql2
import numpy as np
import shapely

from headcount.api.ogc.feature_table import FeatureTable, Property, table
from headcount.errors import QueryError
from headcount.messages.times import DAY_S

#: Longer filters, and deeper ones, are rejected: the parser is recursive, and its time doubles with each level.
MAX_CHARS = 4000
MAX_DEPTH = 12

_PREFIXES = re.compile(r"(?:-\s*|not\s+)+", re.IGNORECASE)
_Kind = Literal["string", "number", "time", "interval", "geometry", "boolean"]
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "div": np.floor_divide,
    "%": np.fmod,
    "^": np.power,
}
_SPATIAL: dict[str, Callable[[Any, Any], Any]] = {
    "s_contains": shapely.contains,
    "s_crosses": shapely.crosses,
    "s_disjoint": shapely.disjoint,
    "s_equals": shapely.equals,
    "s_intersects": shapely.intersects,
    "s_overlaps": shapely.overlaps,
    "s_touches": shapely.touches,
    "s_within": shapely.within,
}
#: Starts and ends of two intervals; those of an instant are the same (table 10 of the standard).
_TEMPORAL: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "t_after": lambda s1, _e1, _s2, e2: s1 > e2,
    "t_before": lambda _s1, e1, s2, _e2: e1 < s2,
    "t_contains": lambda s1, e1, s2, e2: (s1 < s2) & (e1 > e2),
    "t_disjoint": lambda s1, e1, s2, e2: (e1 < s2) | (s1 > e2),
    "t_during": lambda s1, e1, s2, e2: (s1 > s2) & (e1 < e2),
    "t_equals": lambda s1, e1, s2, e2: (s1 == s2) & (e1 == e2),
    "t_finishedby": lambda s1, e1, s2, e2: (s1 < s2) & (e1 == e2),
    "t_finishes": lambda s1, e1, s2, e2: (s1 > s2) & (e1 == e2),
    "t_intersects": lambda s1, e1, s2, e2: (s1 <= e2) & (e1 >= s2),
    "t_meets": lambda _s1, e1, s2, _e2: e1 == s2,
    "t_metby": lambda s1, _e1, _s2, e2: s1 == e2,
    "t_overlappedby": lambda s1, e1, s2, e2: (s1 > s2) & (s1 < e2) & (e1 > e2),
    "t_overlaps": lambda s1, e1, s2, e2: (s1 < s2) & (e1 > s2) & (e1 < e2),
    "t_startedby": lambda s1, e1, s2, e2: (s1 == s2) & (e1 > e2),
    "t_starts": lambda s1, e1, s2, e2: (s1 == s2) & (e1 < e2),
}


@dataclass(frozen=True, slots=True)
class _Value:
    """One value, or one per feature; an interval is a pair. `known` masks nulls."""

    kind: _Kind
    data: Any
    known: Any = True


class Filter:
    """A parsed filter that fits the properties of a collection."""

    def __init__(
        self, text: str, language: Literal["cql2-text", "cql2-json"], properties: Sequence[Property]
    ) -> None:
        """Parse a filter.

        Raises:
            QueryError: it is not valid, too long, too deep, or does not fit the properties.
        """
        if len(text) > MAX_CHARS:
            raise _error(f"has more than {MAX_CHARS} characters")
        if language == "cql2-text" and _depth(text) > MAX_DEPTH:  # JSON is limited by its own parser
            raise _error(f"is nested deeper than {MAX_DEPTH} levels")
        try:
            parsed = cql2.parse_text(text) if language == "cql2-text" else cql2.parse_json(text)
            tree = parsed.to_json()
        except cql2.ParseError as error:
            raise _error(f"is not valid {language}: {_one_line(error)}") from error
        self._tree = tree
        self.matches(table(properties, [], [], []))  # checks names and types

    def matches(self, features: FeatureTable) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which features the filter selects.

        Raises:
            QueryError: the filter does not fit the properties.
        """
        found = _evaluate(self._tree, features)
        if found.kind != "boolean":
            raise _error("is not a condition")
        return np.broadcast_to(found.data & found.known, len(features))


def _evaluate(node: Any, features: FeatureTable) -> _Value:
    match node:
        case bool():
            return _Value("boolean", np.bool_(node))
        case int() | float():
            return _Value("number", float(node))
        case str():
            return _Value("string", node)
        case {"property": str(name)}:
            return _property(name, features)
        case {"timestamp": str(text)} | {"date": str(text)}:
            return _Value("time", _start_s(text))
        case {"interval": [start, end]}:
            return _interval(start, end, features)
        case {"bbox": [*numbers]}:
            return _Value("geometry", _prepared(box(numbers)))
        case {"type": str(), "coordinates": list()} | {"type": "GeometryCollection"}:
            return _Value("geometry", _geometry(node))
        case {"op": str(op), "args": [*args]}:
            return _operation(op.lower(), args, features)
    raise _error(f"has an unsupported part: {str(node)[:80]}")


def _operation(op: str, args: list[Any], features: FeatureTable) -> _Value:
    values = [_evaluate(each, features) for each in args if op != "in" or not isinstance(each, list)]
    match op, values:
        case (("and" | "or"), [_, _, *_]):
            return functools.reduce(_and if op == "and" else _or, map(_condition, values))
        case "not", [value]:
            return _Value("boolean", ~_condition(value).data, value.known)
        case "isnull", [value]:
            return _Value("boolean", np.logical_not(value.known))
        case "between", [value, low, high]:
            return _and(_compared(">=", value, low), _compared("<=", value, high))
        case "in", [value] if len(args) == 2 and isinstance(args[1], list) and args[1]:
            return functools.reduce(
                _or, [_compared("=", value, _evaluate(each, features)) for each in args[1]]
            )
        case "like", [value, pattern]:
            return _like(value, pattern)
        case "casei", [_Value(kind="string") as value]:
            folded = _each_text(str.casefold, value.data)
            return _Value("string", folded, value.known)
        case _, [a, b] if op in _COMPARISONS:
            return _compared(op, a, b)
        case _, [a, b] if op in _ARITHMETIC:
            return _calculated(op, a, b)
        case _, [a, b] if op in _SPATIAL:
            _same_kind(op, a, b, "geometry")
            return _Value("boolean", _SPATIAL[op](a.data, b.data), _both(a, b))
        case _, [a, b] if op in _TEMPORAL:
            return _Value("boolean", _TEMPORAL[op](*_span(op, a), *_span(op, b)), _both(a, b))
    raise _error(f"has {op[:40]!r} with {len(args)} arguments, which is not supported")


def _property(name: str, features: FeatureTable) -> _Value:
    if name == "geometry":
        return _Value("geometry", features.geometry)
    column = features.columns.get(name)
    if column is None:
        raise _error(
            f"has the unknown property {name[:64]!r}; there are: {', '.join(features.columns)}, geometry"
        )
    return _Value("number" if column.type == "integer" else column.type, column.values, column.known)


def _compared(op: str, a: _Value, b: _Value) -> _Value:
    if a.kind != b.kind or a.kind in ("geometry", "interval"):
        raise _error(f"compares {a.kind} {op} {b.kind}")
    return _Value("boolean", np.asarray(_COMPARISONS[op](a.data, b.data), np.bool_), _both(a, b))


def _calculated(op: str, a: _Value, b: _Value) -> _Value:
    _same_kind(op, a, b, "number")
    with np.errstate(all="ignore"):
        data = _ARITHMETIC[op](np.asarray(a.data, np.float64), b.data)
    return _Value("number", data, _both(a, b) & np.isfinite(data))


def _and(a: _Value, b: _Value) -> _Value:
    data = a.data & b.data
    return _Value("boolean", data, _both(a, b) | (a.known & ~a.data) | (b.known & ~b.data))


def _or(a: _Value, b: _Value) -> _Value:
    known_true = (a.known & a.data) | (b.known & b.data)
    return _Value("boolean", known_true, _both(a, b) | known_true)


def _condition(value: _Value) -> _Value:
    if value.kind != "boolean":
        raise _error(f"uses a {value.kind} as a condition")
    return value


def _both(a: _Value, b: _Value) -> Any:
    return np.logical_and(a.known, b.known)


def _same_kind(op: str, a: _Value, b: _Value, kind: _Kind) -> None:
    if (a.kind, b.kind) != (kind, kind):
        raise _error(f"has {op!r} with {a.kind} and {b.kind}; it takes two of {kind}")


def _like(value: _Value, pattern: _Value) -> _Value:
    if value.kind != "string" or pattern.kind != "string" or not isinstance(pattern.data, str):
        raise _error("has LIKE without a text and a pattern")
    matcher = like_pattern(pattern.data)
    return _Value(
        "boolean",
        _each_text(lambda text: matcher.fullmatch(text) is not None, value.data, np.bool_),
        value.known,
    )


def like_pattern(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of a LIKE pattern; atomic groups keep it free of backtracking."""
    tokens = re.findall(r"\\.|[%]|.", pattern, re.DOTALL)
    parts = [""]
    for token in tokens:
        if token == "%":  # noqa: S105  # a wildcard
            parts.append("")
        else:
            parts[-1] += "." if token == "_" else re.escape(token[-1])  # noqa: S105
    first, *rest = parts
    middle = "".join(f"(?>.*?{part})" for part in rest[:-1] if part)
    return re.compile(first + middle + (f".*{rest[-1]}" if rest else ""), re.DOTALL)


def _each_text(act: Callable[[str], Any], data: Any, dtype: Any = object) -> Any:
    if isinstance(data, str):
        return np.bool_(act(data)) if dtype is np.bool_ else act(data)
    return np.fromiter((act(text) for text in data), dtype, len(data))


def _interval(start: Any, end: Any, features: FeatureTable) -> _Value:
    """An interval of instants, dates (the end's day is included), properties or `..`."""
    limits, known = [], np.bool_(True)
    for each, unbounded, is_end in ((start, -math.inf, False), (end, math.inf, True)):
        if each == "..":
            limits.append(unbounded)
        elif isinstance(each, str):
            whole_day = is_end and len(each) == len("2026-11-28")
            limits.append(_start_s(each) + (DAY_S - 1e-6 if whole_day else 0))
        else:
            value = _evaluate(each, features)
            if value.kind != "time":
                raise _error(f"has an interval with a {value.kind}")
            limits.append(value.data)
            known = np.logical_and(known, value.known)
    return _Value("interval", tuple(limits), known)


def _span(op: str, value: _Value) -> tuple[Any, Any]:
    if value.kind == "interval":
        return value.data  # type: ignore[no-any-return]
    if value.kind != "time":
        raise _error(f"has {op!r} with a {value.kind}")
    return value.data, value.data


def _start_s(text: str) -> float:
    """Unix seconds of an RFC 3339 time stamp with offset, or of the beginning of a date in UTC."""
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else _date(text, moment)).timestamp()
    except (ValueError, OverflowError) as error:
        raise _error(f"has {text[:40]!r}, which is neither a date nor a time with offset") from error


def _date(text: str, moment: datetime) -> datetime:
    if len(text) != len("2026-11-28"):
        raise ValueError(text)
    return moment.replace(tzinfo=UTC)


def box(numbers: Sequence[Any]) -> Any:
    """Return the geometry of `west, south, east, north` (or with heights); across the 180th meridian, two boxes.

    Raises:
        QueryError: these are not degrees in that order.
    """
    if len(numbers) not in (4, 6) or not all(
        isinstance(n, (int, float)) and math.isfinite(n) for n in numbers
    ):
        raise QueryError("bbox", "expected 4 or 6 finite numbers: west,south,east,north")
    half = len(numbers) // 2
    (west, south), (east, north) = numbers[:2], numbers[half : half + 2]
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise QueryError("bbox", "is not west, south, east, north in degrees")
    if west <= east:
        return shapely.box(west, south, east, north)
    return shapely.union(shapely.box(west, south, 180, north), shapely.box(-180, south, east, north))


def _geometry(node: dict[str, Any]) -> Any:
    try:
        shape = shapely.from_geojson(json.dumps(node))
        bounds = shapely.bounds(shape)
    except (ValueError, TypeError, shapely.errors.ShapelyError) as error:
        raise _error(f"has a {str(node.get('type'))[:20]} that is not a GeoJSON geometry") from error
    if not np.isfinite(bounds).all() or not shape.is_valid:
        raise _error(f"has a {shape.geom_type} that is not valid: {shapely.is_valid_reason(shape)}")
    return _prepared(shape)


def _prepared(shape: Any) -> Any:
    shapely.prepare(shape)
    return shape


def _depth(text: str) -> int:
    """An upper bound of the nesting of parentheses and prefixes; those in quotes do not count."""
    bare = re.sub(r"'[^']*'|\"[^\"]*\"", "''", text)
    parentheses = itertools.accumulate((each == "(") - (each == ")") for each in bare)
    prefixes = (run.lower().count("-") + run.lower().count("not") for run in _PREFIXES.findall(bare))
    return max(parentheses, default=0) + max(prefixes, default=0)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _error(problem: str) -> QueryError:
    return QueryError("filter", problem)

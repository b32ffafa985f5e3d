"""CQL2: each operator selects what the standard defines, and nothing that is null."""

from __future__ import annotations

import json
import re
import time

import cql2
import pytest
import shapely

from headcount.api.ogc.cql2_filter import Filter, like_pattern
from headcount.api.ogc.feature_table import Property, table
from headcount.errors import QueryError

DAY = 1_795_478_400  # 2026-11-24T00:00:00Z
PROPERTIES = (
    Property("zone", "string", ""),
    Property("count", "integer", ""),
    Property("share", "number", ""),
    Property("at", "time", ""),
)
FEATURES = table(
    PROPERTIES,
    [
        ("Library", 12, 0.5, DAY + 0.0),
        ("gate_1", 3, None, DAY + 3600.0),
        ("it's (here)", None, 0.25, DAY + 7200.0),
    ],
    [shapely.box(0, 0, 1, 1), shapely.Point(0.5, 0.5), shapely.box(179, 0, 180, 1)],
    ["a", "b", "c"],
)
SELECTED = {
    "zone = 'Library'": "a",
    "'Library' = zone": "a",
    "zone <> 'Library'": "bc",
    "zone > 'a'": "bc",
    "count = 12": "a",
    "count <> 12": "b",
    "count < 12.5 AND count >= 3": "ab",
    "NOT (count > 5)": "b",
    "NOT (count > 5) OR zone LIKE 'it%'": "bc",
    "count > 5 OR zone = 'gate_1'": "ab",
    "count > 5 AND share IS NULL": "",
    "count IS NULL": "c",
    "count IS NOT NULL": "ab",
    "count BETWEEN 3 AND 11": "b",
    "count NOT BETWEEN 3 AND 11": "a",
    "zone IN ('Library', 'nowhere')": "a",
    "count NOT IN (3, 4)": "a",
    "zone LIKE '%r%r%'": "a",
    "zone LIKE 'gate__'": "b",
    "zone LIKE 'gate\\_1'": "b",
    "zone NOT LIKE '%a%'": "c",
    "CASEI(zone) = CASEI('LIBRARY')": "a",
    "CASEI(zone) LIKE CASEI('LIB%')": "a",
    "zone = 'it''s (here)'": "c",
    "count * 2 + 1 = 25": "a",
    "count / 0 = 1": "",
    "share ^ 2 = 0.25": "a",
    "count % 5 = 2 AND count div 5 = 2": "a",
    "count > share": "a",
    "at = TIMESTAMP('2026-11-24T00:00:00Z')": "a",
    "at > TIMESTAMP('2026-11-24T01:30:00+01:00')": "bc",
    "at >= DATE('2026-11-24')": "abc",
    "T_AFTER(at, TIMESTAMP('2026-11-24T00:00:00Z'))": "bc",
    "T_BEFORE(at, TIMESTAMP('2026-11-24T01:00:00Z'))": "a",
    "T_DURING(at, INTERVAL('2026-11-24T00:30:00Z', '2026-11-24T01:30:00Z'))": "b",
    "T_INTERSECTS(at, INTERVAL('..', '2026-11-24T01:00:00Z'))": "ab",
    "T_INTERSECTS(at, INTERVAL('2026-11-24', '2026-11-24'))": "abc",
    "T_FINISHEDBY(INTERVAL('2026-11-23', at), at)": "abc",
    "T_EQUALS(at, TIMESTAMP('2026-11-24T00:00:00Z'))": "a",
    "S_INTERSECTS(geometry, POINT(0.5 0.5))": "ab",
    "S_INTERSECTS(geometry, BBOX(178, -1, -178, 2))": "c",
    "S_WITHIN(geometry, POLYGON((0.2 0.2, 0.8 0.2, 0.5 0.9, 0.2 0.2)))": "b",
    "S_DISJOINT(geometry, BBOX(-1, -1, 2, 2))": "c",
    "S_CONTAINS(geometry, POINT(0.25 0.25))": "a",
    "S_EQUALS(geometry, POINT(0.5 0.5))": "b",
    "S_TOUCHES(geometry, LINESTRING(1 0, 2 0))": "a",
    "TRUE": "abc",
    "FALSE OR zone = 'Library'": "a",
}


def selected(text: str, language: str = "cql2-text") -> str:
    """The ids of the selected features."""
    found = Filter(text, language, PROPERTIES).matches(FEATURES)  # type: ignore[arg-type]
    return "".join(id_ for id_, is_selected in zip(FEATURES.ids, found, strict=True) if is_selected)


@pytest.mark.parametrize("text", SELECTED)
def test_text_and_json_select_the_same(text: str) -> None:
    """Each operator selects the expected features, in both encodings."""
    assert selected(text) == SELECTED[text]
    assert selected(json.dumps(cql2.parse_text(text).to_json()), "cql2-json") == SELECTED[text]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("zone = ", "is not valid cql2-text"),
        ("zone = 'a' garbage", "is not valid cql2-text"),
        ("nothing = 1", "unknown property 'nothing'; there are: zone, count, share, at, geometry"),
        ("zone = 1", "compares string = number"),
        ("at > 'yesterday'", "compares time > string"),
        ("zone", "is not a condition"),
        ("zone AND TRUE", "uses a string as a condition"),
        ("zone + 1 = 2", "has '+' with string and number"),
        ("soundex(zone) = 'a'", "has 'soundex' with 1 arguments, which is not supported"),
        ("S_INTERSECTS(zone, POINT(0 0))", "has 's_intersects' with string and geometry"),
        ("S_INTERSECTS(geometry, POLYGON((0 0, 1 1, 0 1, 1 0, 0 0)))", "not valid"),
        ("S_INTERSECTS(geometry, BBOX(0, 5, 1, 1))", "is not west, south, east, north"),
        ("at = TIMESTAMP('2026-13-01T00:00:00Z')", "neither a date nor a time"),
        ("x" * 4001, "has more than 4000 characters"),
        ("a in ((" * 200, "is nested deeper than 12 levels"),
        ("a in (')' , (" * 100, "is nested deeper than 12 levels"),
        ("-" * 3900 + "1 = 1", "is nested deeper than 12 levels"),
        ("not " * 900 + "TRUE", "is nested deeper than 12 levels"),
    ],
)
def test_what_is_wrong_is_rejected(text: str, problem: str) -> None:
    """A filter that cannot be evaluated is rejected with the reason, also where there are no features."""
    with pytest.raises(QueryError, match=re.escape(problem)) as caught:
        Filter(text, "cql2-text", PROPERTIES)
    assert caught.value.parameter in ("filter", "bbox")


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"op":"and","args":[]}', '{"op":"in","args":[{"property":"zone"},[]]}', "[" * 4000]
)
def test_invalid_json_is_rejected(text: str) -> None:
    """CQL2 JSON that is no condition is rejected."""
    with pytest.raises(QueryError):
        Filter(text, "cql2-json", PROPERTIES)


def test_no_filter_takes_long() -> None:
    """Hostile nesting and wildcards cost milliseconds."""
    started_s = time.process_time()
    with pytest.raises(QueryError):
        Filter("a in ((" * 6, "cql2-text", PROPERTIES)
    assert like_pattern("%a" * 40 + "b").fullmatch("a" * 5000) is None
    assert time.process_time() - started_s < 2  # without the limits: minutes

"""Examples of answers and errors, for OpenAPI; the tests hold them against the shapes."""

from __future__ import annotations

import json
from typing import Any

from headcount.api.schemas import problems

_PERSON = {"count": 412, "low": 390, "high": 420, "stale": 12}
_VEHICLE = {"count": 3, "low": 1, "high": 4, "stale": 0}
_ZONE = {"zone": "library", "person": _PERSON, "vehicle": _VEHICLE}
_WHOLE = {
    "zone": "site",
    "person": {"count": 3120, "low": 3004, "high": 3120, "stale": 61},
    "vehicle": {"count": 840, "low": 610, "high": 840, "stale": 700},
}
_FRESH = {
    "site": "ul",
    "at": "2026-11-24T13:00:00.100Z",
    "partitions_fresh": 16,
    "partitions_total": 16,
    "age_s": 0.12,
}

_HIDDEN = {"low": None, "high": None, "stale": None}
#: What the public is told where small counts are hidden.
PUBLIC_COUNTS: dict[str, Any] = {
    **_FRESH,
    "at": "2026-11-24T13:00:00.000Z",
    "age_s": 21.3,
    "zones": [
        {"zone": "site", "person": {"count": 3120, **_HIDDEN}, "vehicle": {"count": 840, **_HIDDEN}},
        {"zone": "library", "person": {"count": 410, **_HIDDEN}, "vehicle": {"count": "<5", **_HIDDEN}},
    ],
}
COUNTS: dict[str, Any] = {**_FRESH, "zones": [_WHOLE, _ZONE]}
ZONE_COUNT: dict[str, Any] = {**_FRESH, **_ZONE}
PUBLIC_ZONE_COUNT: dict[str, Any] = {
    **{name: value for name, value in PUBLIC_COUNTS.items() if name != "zones"},
    **PUBLIC_COUNTS["zones"][1],
}
STREAM_COUNTS: dict[str, Any] = {**_FRESH, "full": True, "zones": [_WHOLE, _ZONE]}
STREAM_CHANGES: dict[str, Any] = {
    **_FRESH,
    "at": "2026-11-24T13:00:01.100Z",
    "full": False,
    "zones": [{**_ZONE, "person": {**_PERSON, "count": 413, "high": 421}}],
}
PING: dict[str, Any] = {"at": "2026-11-24T13:00:05.000Z", "age_s": 0.11}
STREAM_TEXT = (
    "retry: 2000\n\n"
    f"event: counts\nid: {STREAM_COUNTS['at']}\ndata: {json.dumps(STREAM_COUNTS)}\n\n"
    f"event: counts\nid: {STREAM_CHANGES['at']}\ndata: {json.dumps(STREAM_CHANGES)}\n\n"
    f"event: ping\ndata: {json.dumps(PING)}\n\n"
)
HISTORY: dict[str, Any] = {
    "site": "ul",
    "zone": "library",
    "from": "2026-11-24T12:00:00.000Z",
    "to": "2026-11-24T13:00:00.000Z",
    "step_s": 1800.0,
    "rows": [
        {
            "at": "2026-11-24T12:30:00.000Z",
            "person": {"count": 398, "min": 371, "max": 405, "mean": 388.2},
            "vehicle": {"count": 2, "min": 1, "max": 3, "mean": 1.9},
        },
        {
            "at": "2026-11-24T13:00:00.000Z",
            "person": {"count": 412, "min": 396, "max": 415, "mean": 404.6},
            "vehicle": {"count": 3, "min": 2, "max": 4, "mean": 2.7},
        },
    ],
}
_ROUNDED = {"min": None, "max": None, "mean": None}
PUBLIC_HISTORY: dict[str, Any] = {
    **HISTORY,
    "rows": [
        {
            "at": "2026-11-24T12:30:00.000Z",
            "person": {"count": 400, **_ROUNDED},
            "vehicle": {"count": "<5", **_ROUNDED},
        },
        {
            "at": "2026-11-24T13:00:00.000Z",
            "person": {"count": 410, **_ROUNDED},
            "vehicle": {"count": "<5", **_ROUNDED},
        },
    ],
}
SITES: dict[str, Any] = {
    "sites": [
        {
            "id": "ul",
            "name": "University of Limerick",
            "timezone": "Europe/Dublin",
            "zones": 120,
            "bbox": [-8.589, 52.668, -8.552, 52.681],
            "links": {
                "self": "/v1/sites/ul",
                "counts": "/v1/sites/ul/counts",
                "stream": "/v1/sites/ul/stream",
                "websocket": "/v1/sites/ul/ws",
            },
        }
    ]
}
_SQUARE = [[[-8.58, 52.67], [-8.56, 52.67], [-8.56, 52.68], [-8.58, 52.68], [-8.58, 52.67]]]
_ROOM = [[[-8.573, 52.673], [-8.572, 52.673], [-8.572, 52.674], [-8.573, 52.674], [-8.573, 52.673]]]
SITE: dict[str, Any] = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": _SQUARE},
            "properties": {
                "role": "site",
                "id": "ul",
                "name": "University of Limerick",
                "timezone": "Europe/Dublin",
            },
        },
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": _ROOM},
            "properties": {
                "role": "zone",
                "id": "library",
                "name": "Glucksman Library",
                "type": "building",
                "capacity": {"person": 1100},
            },
        },
    ],
}
FIXES: dict[str, Any] = {
    "type": "FeatureCollection",
    "precision": "exact",
    "truncated": False,
    "features": [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [-8.5722, 52.6737]},
            "properties": {
                "device": "q3Zk0w9uTtS1",
                "kind": "person",
                "t": "2026-11-24T12:59:58.000Z",
                "acc": 8.5,
                "verdict": "accepted",
            },
        }
    ],
}
CELLS: dict[str, Any] = {
    "type": "FeatureCollection",
    "precision": "coarse",
    "truncated": False,
    "features": [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": _ROOM},
            "properties": {
                "kind": "person",
                "from": "2026-11-24T12:50:00.000Z",
                "to": "2026-11-24T12:55:00.000Z",
                "devices": 23,
            },
        }
    ],
}
WHOAMI: dict[str, Any] = {
    "subject": "person alice (248289761001)",
    "role": "operator",
    "scopes": ["counts:exact", "positions:coarse", "positions:read", "system:read"],
    "sites": [],
    "name": "alice",
    "csrf": "ZjQ5uJ1h0rC8bqYkVn5x2mD7sWtE3oLgA6iKpR4yXcU",
    "expires": "2026-11-24T21:00:00.000Z",
    "login": True,
}
_TOKEN: dict[str, Any] = {
    "id": "k3vq2hbw5yxa",
    "name": "Prometheus",
    "role": "viewer",
    "sites": [],
    "scopes": ["system:read"],
    "created": "2026-11-24T13:00:00.000Z",
    "expires": "2027-11-24T13:00:00.000Z",
}
TOKENS: dict[str, Any] = {"tokens": [_TOKEN]}
NEW_TOKEN: dict[str, Any] = {**_TOKEN, "token": "hc_k3vq2hbw5yxa_…"}
_ENTRY_HASHES = ("5f1c…", "b07a…")
AUDIT: dict[str, Any] = {
    "entries": [
        {
            "n": 42,
            "at": "2026-11-24T13:00:00.000Z",
            "actor": "person alice (248289761001)",
            "action": "positions.read",
            "subject": "",
            "detail": {"reason": "search for a missing person, case 12", "rows": 17, "within": "library"},
            "prev": _ENTRY_HASHES[0],
            "hash": _ENTRY_HASHES[1],
        }
    ],
    "before": 42,
}
VERIFIED: dict[str, Any] = {
    "intact": True,
    "entries": 42,
    "first": 1,
    "head": f"42:{_ENTRY_HASHES[1]}",
    "problems": [],
}
DEVICE: dict[str, Any] = {
    "site": "ul",
    "kind": "person",
    "device": "phone-1",
    "present": True,
    "zones": ["site", "library"],
    "last_t": "2026-11-24T12:59:58.000Z",
    "lat": 52.6737,
    "lon": -8.5722,
    "acc": 8.5,
    "offline": False,
    "last_verdict": "accepted",
    "verdicts": {"accepted": 118, "duplicate": 2},
}
READY: dict[str, Any] = {"status": "ready", "at": "2026-11-24T13:00:00.100Z", "age_s": 0.12}
SCALING: dict[str, Any] = {
    "name": "core-4f02aa",
    "at": "2026-11-24T10:00:02.000Z",
    "age_s": 0.4,
    "driver": "docker",
    "dry_run": False,
    "targets": [
        {"role": "broker", "wanted": 2, "actual": 2, "least": 1, "most": 4},
        {"role": "count", "wanted": 3, "actual": 2, "least": 1, "most": 8},
    ],
    "signals": {"fixes_per_s": 41200.0, "lag": 12.0, "latency_p99_s": 0.148, "connections": 6100.0},
    "decisions": [
        {
            "at": "2026-11-24T10:00:00.000Z",
            "role": "count",
            "before": 2,
            "after": 3,
            "reason": "41200 fixes/s need 2.35 of 17500 each",
            "dry": False,
        }
    ],
}

_DETAILS = {
    "sign-in": ("/v1/sites/ul/fixes", problems.SIGN_IN.meaning),
    "not-allowed": ("/v1/tokens", "token k3vq2hbw5yxa has no scope 'tokens:write' here."),
    "token-in-url": ("/v1/sites/ul/counts", problems.TOKEN_IN_URL.meaning),
    "cross-site": (
        "/v1/tokens",
        f"The header Headcount-CSRF is missing or wrong. {problems.CROSS_SITE.meaning}",
    ),
    "login-failed": ("/login/callback", "The state isn't the one that this browser began with."),
    "no-login": ("/login", problems.NO_LOGIN.meaning),
    "too-long": ("/v1/tokens", "At most 1048576 bytes are taken here."),
    "too-many-requests": ("/v1/sites/ul/counts", "Anybody asks too often. Try again in 1 s."),
    "log-away": ("/v1/sites/ul/fixes", problems.LOG_AWAY.meaning),
    "unknown-token": ("/v1/tokens/k3vq2hbw5yxa", "There is no token 'k3vq2hbw5yxa'."),
    "unknown-site": ("/v1/sites/moon", "There is no site 'moon'; 'ul' is counted here."),
    "unknown-zone": (
        "/v1/sites/ul/zones/moon",
        "Site 'ul' has no zone 'moon'; GET /v1/sites/ul has all of them.",
    ),
    "unknown-device": (
        "/v1/sites/ul/devices/person/nobody",
        "Nothing was received from person 'nobody' on site 'ul'.",
    ),
    "unknown-command": (
        "/v1/sites/ul/devices/k3vq2hbw5yxam7p4n6ts/commands/5f0c2b9a7d13e486",
        problems.UNKNOWN_COMMAND.meaning,
    ),
    "too-many-commands": (
        "/v1/sites/ul/devices/k3vq2hbw5yxam7p4n6ts/commands",
        "20 wait for this device already. Withdraw some, or wait for its answers.",
    ),
    "device-sign-in": ("/v1/me", problems.DEVICE_SIGN_IN.meaning),
    "alias-taken": (
        "/v1/sites/ul/devices",
        "alias 'owntracks/ada/phone': leads to another device. Remove it there first.",
    ),
    "link-refused": ("/v1/provision", problems.LINK_REFUSED.meaning),
    "not-recorded": (
        "/v1/sites/ul/counts",
        "Nothing is recorded at or before 2026-11-20T13:00:00.000Z. The history keeps 24 hours.",
    ),
    "invalid-parameter": ("/v1/sites/ul/counts", "at: not between 1970 and 2100; Unix times are in seconds"),
    "upgrade-required": (
        "/v1/sites/ul/ws",
        "This address speaks WebSocket. Over HTTP, the same updates are at /stream.",
    ),
    "history-unreadable": ("/v1/sites/ul/fixes", problems.UNREADABLE.meaning),
    "no-counts-yet": ("/v1/sites/ul/counts", problems.NO_COUNTS.meaning),
    "not-ready": ("/readyz", "The broker is not connected. 3 of 16 partitions are fresh."),
    "too-many-streams": (
        "/v1/sites/ul/stream",
        "1000 live streams are open. Try again later, or poll /counts.",
    ),
    "too-many-queries": (
        "/v1/sites/ul/fixes",
        "4 history queries are running. Try again in a second.",
    ),
    "no-scaler": (
        "/v1/system/scaling",
        "No scaler was heard within the last 15 s.",
    ),
    "no-answer": ("/v1/sites/ul/devices/person/phone-1", "no worker has partition 3. Try again in a second."),
}


def success(description: str, example: Any, media_type: str = "application/json") -> dict[int | str, Any]:
    """The entry of a good answer in an endpoint's `responses`."""
    return {200: {"description": description, "content": {media_type: {"example": example}}}}


def told(description: str, exact: Any, public: Any) -> dict[int | str, Any]:
    """The same where the public is told less."""
    each = {
        "exact": {"summary": "With the scope counts:exact", "value": exact},
        "public": {"summary": "Without it, where small counts are hidden", "value": public},
    }
    return {200: {"description": description, "content": {"application/json": {"examples": each}}}}


def failures(*names: str) -> dict[int | str, dict[str, Any]]:
    """The entries of problems in an endpoint's `responses`, each with an example, by status."""
    entries: dict[int | str, dict[str, Any]] = {}
    for name in names:
        kind = problems.TYPES[name]
        path, detail = _DETAILS[name]
        errors = None
        if kind is problems.INVALID:
            errors = [problems.ParameterProblem(parameter="at", problem=detail.removeprefix("at: "))]
        example = problems.document(kind, detail, path, errors).model_dump(exclude_none=True)
        entry = entries.setdefault(kind.status, _empty_entry())
        entry["description"] = "; ".join(filter(None, (entry["description"], kind.title)))
        entry["content"][problems.MEDIA_TYPE]["examples"][name] = {"summary": kind.title, "value": example}
    return entries


def _empty_entry() -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": "", "content": {problems.MEDIA_TYPE: {"schema": schema, "examples": {}}}}

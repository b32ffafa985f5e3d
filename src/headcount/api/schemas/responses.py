"""The `responses` of endpoints for OpenAPI: examples of successes and of problems."""

from __future__ import annotations

from typing import Any

from headcount.api.schemas import problems

#: By problem type: the path and the detail of its example.
_DETAILS = {
    "sign-in": ("/v1/sites/ul/fixes", problems.SIGN_IN.meaning),
    "not-allowed": ("/v1/tokens", "token k3vq2hbw5yxa has no scope 'tokens:write' here."),
    "token-in-url": ("/v1/sites/ul/counts", problems.TOKEN_IN_URL.meaning),
    "cross-site": (
        "/v1/tokens",
        f"The header Headcount-CSRF is missing or wrong. {problems.CROSS_SITE.meaning}",
    ),
    "login-failed": ("/login/callback", "The state does not match the one that this browser started with."),
    "no-login": ("/login", problems.NO_LOGIN.meaning),
    "too-long": ("/v1/tokens", "The limit is 1048576 bytes."),
    "too-many-requests": ("/v1/sites/ul/counts", "Too many requests by anybody. Try again in 1 s."),
    "log-away": ("/v1/sites/ul/fixes", problems.LOG_AWAY.meaning),
    "unknown-token": ("/v1/tokens/k3vq2hbw5yxa", "There is no token 'k3vq2hbw5yxa' that you may see."),
    "unknown-site": ("/v1/sites/moon", "There is no site 'moon'; this API serves 'ul'."),
    "unknown-zone": (
        "/v1/sites/ul/zones/moon",
        "Site 'ul' has no zone 'moon'; GET /v1/sites/ul lists all zones.",
    ),
    "unknown-device": (
        "/v1/sites/ul/devices/person/nobody",
        "person 'nobody' is unknown: nothing was received from it on site 'ul'.",
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
        "This address is for WebSockets. Over HTTP, the same updates are at /stream.",
    ),
    "history-unreadable": ("/v1/sites/ul/fixes", problems.UNREADABLE.meaning),
    "no-counts-yet": ("/v1/sites/ul/counts", problems.NO_COUNTS.meaning),
    "not-ready": ("/readyz", "The core is not connected. 3 of 16 partitions are fresh."),
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
        "No autoscaler reported within the last 15 s.",
    ),
    "no-answer": (
        "/v1/sites/ul/devices/person/phone-1",
        "no worker owns partition 3. Try again in a second.",
    ),
}


def success(description: str, example: Any, media_type: str = "application/json") -> dict[int | str, Any]:
    """Return the entry of a success in an endpoint's `responses`."""
    return {200: {"description": description, "content": {media_type: {"example": example}}}}


def success_by_scope(description: str, exact: Any, public: Any) -> dict[int | str, Any]:
    """Return the same for an endpoint whose public answer has hidden counts."""
    each = {
        "exact": {"summary": "With the scope counts:exact", "value": exact},
        "public": {"summary": "Without it, where small counts are hidden", "value": public},
    }
    return {200: {"description": description, "content": {"application/json": {"examples": each}}}}


def failures(*names: str) -> dict[int | str, dict[str, Any]]:
    """Return the entries of problems in an endpoint's `responses`, each with an example, by status."""
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

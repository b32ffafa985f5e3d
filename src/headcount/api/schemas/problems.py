"""Problem documents (RFC 9457), and their types, which stay the same.

A problem's `type` is a relative reference, `/problems/<name>`, whose page explains it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from fastapi.responses import Response
from pydantic import Field

from headcount.api.schemas.base import Schema

MEDIA_TYPE = "application/problem+json"
MAX_INSTANCE = 200


@dataclass(frozen=True, slots=True)
class ProblemType:
    """A type of problem."""

    name: str
    status: int
    title: str
    meaning: str  # and what to do about it
    example_path: str = ""
    example_detail: str = ""


#: All types, by name.
TYPES: dict[str, ProblemType] = {}


def _problem(
    name: str, status: int, title: str, meaning: str, path: str = "", detail: str = ""
) -> ProblemType:
    TYPES[name] = ProblemType(name, status, title, meaning, path, detail or meaning)
    return TYPES[name]


BAD_REQUEST = _problem(
    "bad-request", 400, "Bad request", "The request is malformed. Check its method, headers and body."
)
SIGN_IN = _problem(
    "sign-in",
    401,
    "Authentication required",
    "Send a token with the required scope: `Authorization: Bearer …`, created by `headcount token add`; or log in.",
    "/v1/sites/ul/fixes",
)
DEVICE_SIGN_IN = _problem(
    "device-sign-in",
    401,
    "Device authentication required",
    "Authenticate with HTTP Basic: the device's id as user, its secret or a signed token as password. If the secret is lost, your administrator can create a new one-time link.",
    "/v1/me",
)
NOT_ALLOWED = _problem(
    "not-allowed",
    403,
    "Permission denied",
    "The detail names the missing scope. The administrator who created your token or account can grant it.",
    "/v1/tokens",
    "token k3vq2hbw5yxa has no scope 'tokens:write' here.",
)
TOKEN_IN_URL = _problem(
    "token-in-url",
    400,
    "Token in the address",
    "Addresses are stored in logs and histories. Send the token as `Authorization: Bearer …`, and revoke this one: `headcount token revoke`.",
    "/v1/sites/ul/counts",
)
CROSS_SITE = _problem(
    "cross-site",
    403,
    "Cross-site request rejected",
    "A change with a session cookie needs the header `Headcount-CSRF` with the `csrf` of GET /v1/whoami, and must come from a page of this address. Programs use a token instead.",
    "/v1/tokens",
    "The header Headcount-CSRF is missing or wrong. A change with a session cookie needs the header `Headcount-CSRF` with the `csrf` of GET /v1/whoami, and must come from a page of this address. Programs use a token instead.",
)
LOGIN_FAILED = _problem(
    "login-failed",
    403,
    "Login failed",
    "The detail gives the reason. Start again at /login; if it fails again, contact your administrator.",
)
NO_LOGIN = _problem(
    "no-login",
    404,
    "Login is not configured",
    "No identity provider is configured (`--oidc-issuer`). Programs authenticate with a token.",
)
NOT_FOUND = _problem("not-found", 404, "Not found", "See /openapi.json for all addresses.")
UNKNOWN_SITE = _problem(
    "unknown-site",
    404,
    "Unknown site",
    "GET /v1/sites lists all sites.",
    "/v1/sites/moon",
    "There is no site 'moon'; this API serves 'ul'.",
)
UNKNOWN_ZONE = _problem(
    "unknown-zone",
    404,
    "Unknown zone",
    "GET /v1/sites/{site} lists all zones of a site.",
    "/v1/sites/ul/zones/moon",
    "Site 'ul' has no zone 'moon'; GET /v1/sites/ul lists all zones.",
)
UNKNOWN_TOKEN = _problem(
    "unknown-token",
    404,
    "Unknown token",
    "GET /v1/tokens lists the tokens that you may see.",
    "/v1/tokens/k3vq2hbw5yxa",
    "There is no token 'k3vq2hbw5yxa' that you may see.",
)
UNKNOWN_DEVICE = _problem(
    "unknown-device",
    404,
    "Unknown device",
    "It is not registered on this site, or nothing was received from it.",
    "/v1/sites/ul/devices/person/phone-9",
    "person 'phone-9' is unknown: nothing was received from it on site 'ul'.",
)
UNKNOWN_COMMAND = _problem(
    "unknown-command",
    404,
    "Unknown command",
    "It never existed, was withdrawn, or finished more than a day ago.",
    "/v1/sites/ul/devices/k3vq2hbw5yxam7p4n6ts/commands/5f0c2b9a7d13e486",
)
ALIAS_TAKEN = _problem(
    "alias-taken",
    409,
    "Alias already in use",
    "An alias belongs to one device only. Remove it from the other device first.",
    "/v1/sites/ul/devices",
    "alias 'owntracks/ada/phone': leads to another device. Remove it there first.",
)
LINK_REFUSED = _problem(
    "link-refused",
    404,
    "Link or code rejected",
    "It is unknown, used or expired: each works once. Request a new one from the person who gave it to you. A new link also replaces the secret that another user of this one has received.",
    "/v1/provision",
)
NOT_RECORDED = _problem(
    "not-recorded",
    404,
    "No record of that moment",
    "The history covers the last 24 hours, except when headcount was not running.",
    "/v1/sites/ul/counts",
    "Nothing is recorded at or before 2026-11-20T13:00:00.000Z. The history keeps 24 hours.",
)
NO_SCALER = _problem(
    "no-scaler",
    404,
    "No autoscaler is running",
    "The number of units stays as started. `headcount run scale`, or `headcount up --elastic`, starts one.",
    "/v1/system/scaling",
    "No autoscaler reported within the last 15 s.",
)
WRONG_METHOD = _problem(
    "method-not-allowed", 405, "Method not allowed", "The header Allow lists the allowed methods."
)
TOO_MANY_COMMANDS = _problem(
    "too-many-commands",
    409,
    "Too many pending commands",
    "Withdraw some, or wait until the device answers or they expire.",
    "/v1/sites/ul/devices/k3vq2hbw5yxam7p4n6ts/commands",
    "20 wait for this device already. Withdraw some, or wait for its answers.",
)
SITE_CHANGED = _problem(
    "site-changed",
    412,
    "The site has changed",
    "Another version was accepted since you read the site, or it was added or removed. Read it again, and repeat your change.",
    "/v1/sites/ul",
)
SITE_LIMIT = _problem(
    "site-limit",
    409,
    "Too few or too many sites",
    "A deployment has at least one site and at most 64. Add another site before you remove the last one.",
    "/v1/sites/ul",
    "ul is the only site. Add another one first.",
)
TOO_LONG = _problem(
    "too-long",
    413,
    "Request body too large",
    "The detail states the limit. Split the request.",
    "/v1/tokens",
    "The limit is 1048576 bytes.",
)
UNKNOWN_INGEST_KEY = _problem(
    "unknown-ingest-key",
    400,
    "Unknown ingest key",
    "The identifier of the app must be the device's ingest key: `headcount device ingest-key` creates one.",
    "/v1/osmand",
)
UNSUPPORTED = _problem(
    "unsupported-media-type",
    415,
    "Unsupported media type",
    "Send one of application/json, application/x-ndjson, application/geo+json and text/plain, not compressed.",
    "/v1/fixes",
    "The media type 'application/xml' is not supported. Send one of application/json, application/x-ndjson, application/geo+json and text/plain, not compressed.",
)
NOT_STORED = _problem(
    "fixes-rejected",
    422,
    "No fix was stored",
    "`errors` gives the verdict on each of the first ten fixes. Sending them again does not help.",
    "/v1/fixes",
    "0: invalid: lat and lon are 0",
)
INVALID = _problem(
    "invalid-parameter",
    422,
    "Invalid parameter",
    "`errors` names each invalid parameter and the reason.",
    "/v1/sites/ul/counts",
    "at: not between 1970 and 2100; Unix times are in seconds",
)
UPGRADE = _problem(
    "upgrade-required",
    426,
    "WebSocket required",
    "Connect with a WebSocket, or use /stream instead.",
    "/v1/sites/ul/ws",
    "This address is for WebSockets. Over HTTP, the same updates are at /stream.",
)
TOO_OFTEN = _problem(
    "too-many-requests",
    429,
    "Too many requests",
    "Wait for the time in the header Retry-After. Each token has its own limit; without a token, your address has one.",
    "/v1/sites/ul/counts",
    "Too many requests from your address. Try again in 1 s.",
)
INTERNAL = _problem("internal-error", 500, "Internal error", "The log of the role `api` has the details.")
UNREADABLE = _problem(
    "history-unreadable",
    500,
    "History unreadable",
    "The log of the role `api` names the file.",
    "/v1/sites/ul/fixes",
)
FORMAT_UNAVAILABLE = _problem(
    "format-unavailable",
    501,
    "Format not available",
    "FlatGeobuf needs pyogrio: install `headcount[analysis]` where the role `api` runs, or request `f=json`.",
    "/ogc/collections/ul.zones/items",
)
NO_COUNTS = _problem(
    "no-counts-yet",
    503,
    "No counts yet",
    "No partition has reported since the start. GET /readyz shows what is missing; try again in a second.",
    "/v1/sites/ul/counts",
)
NOT_READY = _problem(
    "not-ready",
    503,
    "Not ready",
    "Counts may still be served, with their age. With the scope `system:read`, the detail shows what is missing.",
    "/readyz",
    "The core is not connected. 3 of 16 partitions are fresh.",
)
TOO_MANY_STREAMS = _problem(
    "too-many-streams",
    503,
    "Too many open streams",
    "Try again later, or poll /counts.",
    "/v1/sites/ul/stream",
    "1000 live streams are open. Try again later, or poll /counts.",
)
DEVICE_TOO_OFTEN = _problem(
    "too-many-fixes",
    503,
    "Too many fixes from this device",
    "Try again later. The status is not 429, since the app OwnTracks on iOS would drop the fixes.",
    "/v1/owntracks",
)
TOO_MANY_QUERIES = _problem(
    "too-many-queries",
    503,
    "Too many concurrent history queries",
    "Try again in a second.",
    "/v1/sites/ul/fixes",
    "4 history queries are running. Try again in a second.",
)
NO_ANSWER = _problem(
    "no-answer",
    503,
    "The counting worker does not answer",
    "Try again in a second; GET /readyz shows more.",
    "/v1/sites/ul/devices/person/phone-1",
    "no worker owns partition 3. Try again in a second.",
)
LOG_AWAY = _problem(
    "log-away",
    503,
    "The core does not answer",
    "Its data can neither be read nor changed now. Try again in a second; GET /readyz shows more.",
    "/v1/sites/ul/fixes",
)


class ParameterProblem(Schema):
    """An invalid parameter."""

    parameter: str
    problem: str


class Problem(Schema):
    """A problem document (RFC 9457)."""

    type: str = Field(description="Relative reference that names the type of the problem; it stays the same.")
    title: str
    status: int
    detail: str = Field(description="What is wrong with this request, and what to do.")
    instance: str = Field(description="The path of the request.")
    errors: list[ParameterProblem] | None = Field(
        None, description="For `/problems/invalid-parameter` and `/problems/fixes-rejected`."
    )


class ProblemMeaning(Schema):
    """The meaning of a problem type."""

    type: str
    title: str
    status: int
    meaning: str


class ProblemError(Exception):
    """Ends a request with a problem document."""

    def __init__(
        self,
        kind: ProblemType,
        detail: str,
        *,
        parameter: str | None = None,
        headers: Mapping[str, str] | None = None,
        errors: list[ParameterProblem] | None = None,
    ) -> None:
        """State what is wrong and what to do; `parameter` names the invalid one, `errors` several of them."""
        self.kind = kind
        self.errors = errors
        if parameter is not None:
            self.errors = [ParameterProblem(parameter=parameter, problem=detail)]
        self.detail = detail
        self.parameter = parameter
        self.headers = dict(headers or {})
        super().__init__(f"{kind.name}: {detail}")


def invalid(parameter: str, problem: str) -> ProblemError:
    """Return the error of an invalid parameter."""
    return ProblemError(INVALID, f"{parameter}: {problem}", parameter=parameter)


def document(
    kind: ProblemType, detail: str, path: str, errors: list[ParameterProblem] | None = None
) -> Problem:
    """Return a problem document; `path` is the path of the request, not yet percent-encoded."""
    instance = quote(path[:MAX_INSTANCE], safe="/:@!$&'()*+,;=~", errors="replace")
    return Problem(
        type=f"/problems/{kind.name}",
        title=kind.title,
        status=kind.status,
        detail=detail,
        instance=instance,
        errors=errors,
    )


def response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """Return the response that carries a problem document."""
    body = problem.model_dump_json(exclude_none=True)
    return Response(body, problem.status, dict(headers or {}), MEDIA_TYPE)

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
    """A type of problem: name, status, title, and what to do about it."""

    name: str
    status: int
    title: str
    meaning: str


BAD_REQUEST = ProblemType(
    "bad-request", 400, "Bad request", "The request is malformed. Check its method, headers and body."
)
SIGN_IN = ProblemType(
    "sign-in",
    401,
    "Authentication required",
    "Send a token with the required scope: `Authorization: Bearer …`, created by `headcount token add`; or "
    "log in.",
)
DEVICE_SIGN_IN = ProblemType(
    "device-sign-in",
    401,
    "Device authentication required",
    "Authenticate with HTTP Basic: the device's id as user, its secret or a signed token as password. "
    "If the secret is lost, your administrator can create a new one-time link.",
)
NOT_ALLOWED = ProblemType(
    "not-allowed",
    403,
    "Permission denied",
    "The detail names the missing scope. The administrator who created your token or account can grant it.",
)
TOKEN_IN_URL = ProblemType(
    "token-in-url",
    400,
    "Token in the address",
    "Addresses are stored in logs and histories. Send the token as `Authorization: Bearer …`, and revoke this "
    "one: `headcount token revoke`.",
)
CROSS_SITE = ProblemType(
    "cross-site",
    403,
    "Cross-site request rejected",
    "A change with a session cookie needs the header `Headcount-CSRF` with the `csrf` of GET /v1/whoami, and "
    "must come from a page of this address. Programs use a token instead.",
)
LOGIN_FAILED = ProblemType(
    "login-failed",
    403,
    "Login failed",
    "The detail gives the reason. Start again at /login; if it fails again, contact your administrator.",
)
NO_LOGIN = ProblemType(
    "no-login",
    404,
    "Login is not configured",
    "No identity provider is configured (`--oidc-issuer`). Programs authenticate with a token.",
)
NOT_FOUND = ProblemType("not-found", 404, "Not found", "See /openapi.json for all addresses.")
UNKNOWN_SITE = ProblemType("unknown-site", 404, "Unknown site", "GET /v1/sites lists all sites.")
UNKNOWN_ZONE = ProblemType(
    "unknown-zone", 404, "Unknown zone", "GET /v1/sites/{site} lists all zones of a site."
)
UNKNOWN_TOKEN = ProblemType(
    "unknown-token", 404, "Unknown token", "GET /v1/tokens lists the tokens that you may see."
)
UNKNOWN_DEVICE = ProblemType(
    "unknown-device",
    404,
    "Unknown device",
    "It is not registered on this site, or nothing was received from it.",
)
UNKNOWN_COMMAND = ProblemType(
    "unknown-command",
    404,
    "Unknown command",
    "It never existed, was withdrawn, or finished more than a day ago.",
)
ALIAS_TAKEN = ProblemType(
    "alias-taken",
    409,
    "Alias already in use",
    "An alias belongs to one device only. Remove it from the other device first.",
)
LINK_REFUSED = ProblemType(
    "link-refused",
    404,
    "Link or code rejected",
    "It is unknown, used or expired: each works once. Request a new one from the person who gave it to you. A new "
    "link also replaces the secret that another user of this one has received.",
)
NOT_RECORDED = ProblemType(
    "not-recorded",
    404,
    "No record of that moment",
    "The history covers the last 24 hours, except when headcount was not running.",
)
NO_SCALER = ProblemType(
    "no-scaler",
    404,
    "No autoscaler is running",
    "The number of units stays as started. `headcount run scale`, or `headcount up --elastic`, starts one.",
)
WRONG_METHOD = ProblemType(
    "method-not-allowed", 405, "Method not allowed", "The header Allow lists the allowed methods."
)
TOO_MANY_COMMANDS = ProblemType(
    "too-many-commands",
    409,
    "Too many pending commands",
    "Withdraw some, or wait until the device answers or they expire.",
)
TOO_LONG = ProblemType(
    "too-long", 413, "Request body too large", "The detail states the limit. Split the request."
)
INVALID = ProblemType(
    "invalid-parameter",
    422,
    "Invalid parameter",
    "`errors` names each invalid parameter and the reason.",
)
UPGRADE = ProblemType(
    "upgrade-required", 426, "WebSocket required", "Connect with a WebSocket, or use /stream instead."
)
TOO_OFTEN = ProblemType(
    "too-many-requests",
    429,
    "Too many requests",
    "Wait for the time in the header Retry-After. Each token has its own limit; without a token, your address "
    "has one.",
)
INTERNAL = ProblemType("internal-error", 500, "Internal error", "The log of the role `api` has the details.")
UNREADABLE = ProblemType(
    "history-unreadable", 500, "History unreadable", "The log of the role `api` names the file."
)
NO_COUNTS = ProblemType(
    "no-counts-yet",
    503,
    "No counts yet",
    "No partition has reported since the start. GET /readyz shows what is missing; try again in a second.",
)
NOT_READY = ProblemType(
    "not-ready",
    503,
    "Not ready",
    "Counts may still be served, with their age. With the scope `system:read`, the detail shows what is missing.",
)
TOO_MANY_STREAMS = ProblemType(
    "too-many-streams", 503, "Too many open streams", "Try again later, or poll /counts."
)
TOO_MANY_QUERIES = ProblemType(
    "too-many-queries", 503, "Too many concurrent history queries", "Try again in a second."
)
NO_ANSWER = ProblemType(
    "no-answer",
    503,
    "The counting worker does not answer",
    "Try again in a second; GET /readyz shows more.",
)
LOG_AWAY = ProblemType(
    "log-away",
    503,
    "The core does not answer",
    "Its data can neither be read nor changed now. Try again in a second; GET /readyz shows more.",
)

TYPES: Mapping[str, ProblemType] = {
    problem.name: problem
    for problem in (
        BAD_REQUEST, TOKEN_IN_URL, SIGN_IN, DEVICE_SIGN_IN, UNKNOWN_COMMAND, TOO_MANY_COMMANDS, NOT_ALLOWED, CROSS_SITE, LOGIN_FAILED, NO_LOGIN, TOO_LONG, TOO_OFTEN, LOG_AWAY, NOT_FOUND, UNKNOWN_SITE, UNKNOWN_ZONE, UNKNOWN_TOKEN, UNKNOWN_DEVICE, ALIAS_TAKEN, LINK_REFUSED, NOT_RECORDED,
        NO_SCALER, WRONG_METHOD, INVALID, UPGRADE, INTERNAL, UNREADABLE, NO_COUNTS, NOT_READY, TOO_MANY_STREAMS,
        TOO_MANY_QUERIES, NO_ANSWER,
    )
}  # fmt: skip


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
    errors: list[ParameterProblem] | None = Field(None, description="For `/problems/invalid-parameter`.")


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
    ) -> None:
        """State what is wrong and what to do; `parameter` names the invalid one."""
        self.kind = kind
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

"""Every error as a problem document (RFC 9457), of a type that stays the same.

A problem's `type` is a relative reference, `/problems/<name>`; what it means is told there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

MEDIA_TYPE = "application/problem+json"
MAX_INSTANCE = 200


@dataclass(frozen=True, slots=True)
class ProblemType:
    """A kind of problem: its name in the address, status and title, and what to do about it."""

    name: str
    status: int
    title: str
    meaning: str


BAD_REQUEST = ProblemType(
    "bad-request", 400, "The request can't be understood", "Check how the request is put together."
)
SIGN_IN = ProblemType(
    "sign-in",
    401,
    "This isn't for everybody",
    "Send a token that may see it: `Authorization: Bearer …`, made by `headcount token add`; or log in.",
)
DEVICE_SIGN_IN = ProblemType(
    "device-sign-in",
    401,
    "This is for the device itself",
    "Sign in with the device's id as user, and its secret or a signed token as password (HTTP Basic). "
    "Whoever runs this gives you a one-time link if the secret is lost.",
)
NOT_ALLOWED = ProblemType(
    "not-allowed",
    403,
    "You may not do this",
    "The detail names the scope that is missing. Whoever made your token or account can give it to you.",
)
TOKEN_IN_URL = ProblemType(
    "token-in-url",
    400,
    "A token doesn't belong into an address",
    "Addresses end up in logs and histories. Send it as `Authorization: Bearer …`, and revoke this one: "
    "`headcount token revoke`.",
)
CROSS_SITE = ProblemType(
    "cross-site",
    403,
    "Another site's page may not do this for you",
    "With a session's cookie, what changes something needs the header `Headcount-CSRF` with the `csrf` of "
    "GET /v1/whoami, and comes from a page of this address. Programs use a token instead.",
)
LOGIN_FAILED = ProblemType(
    "login-failed",
    403,
    "You couldn't be logged in",
    "The detail says why. Begin again at /login; if it stays so, ask whoever runs this.",
)
NO_LOGIN = ProblemType(
    "no-login",
    404,
    "Nobody can log in here",
    "No identity provider is set (`--oidc-issuer`). Programs sign in with a token.",
)
NOT_FOUND = ProblemType("not-found", 404, "Nothing is there", "See /openapi.json for what there is.")
UNKNOWN_SITE = ProblemType(
    "unknown-site", 404, "There is no such site", "GET /v1/sites lists the sites that are counted here."
)
UNKNOWN_ZONE = ProblemType(
    "unknown-zone", 404, "There is no such zone", "GET /v1/sites/{site} has all zones of a site."
)
UNKNOWN_TOKEN = ProblemType(
    "unknown-token", 404, "There is no such token", "GET /v1/tokens has those that you may see."
)
UNKNOWN_DEVICE = ProblemType(
    "unknown-device",
    404,
    "There is no such device",
    "It isn't registered on this site, or nothing was received from it.",
)
UNKNOWN_COMMAND = ProblemType(
    "unknown-command",
    404,
    "There is no such command",
    "It was never given, was withdrawn, or was finished more than a day ago.",
)
ALIAS_TAKEN = ProblemType(
    "alias-taken",
    409,
    "This name leads to another device",
    "A name of another format can lead to one device only. Remove it there first.",
)
LINK_REFUSED = ProblemType(
    "link-refused",
    404,
    "This link or code doesn't work",
    "It is unknown, was used already, or is over: each works once. Ask whoever gave it to you for a new one. If "
    "it worked for somebody else, tell them so: a new one makes the other's useless.",
)
NOT_RECORDED = ProblemType(
    "not-recorded",
    404,
    "Nothing is recorded of that moment",
    "The history keeps 24 hours, and only of the time when headcount was running.",
)
NO_SCALER = ProblemType(
    "no-scaler",
    404,
    "No scaler runs",
    "The fleet is as large as it was started. `headcount run scale`, or `headcount up --elastic`, starts a scaler.",
)
WRONG_METHOD = ProblemType(
    "method-not-allowed", 405, "This can't be done here", "The header Allow has the methods that can."
)
TOO_MANY_COMMANDS = ProblemType(
    "too-many-commands",
    409,
    "Too many commands wait for this device",
    "Withdraw some, or wait until it answers or they expire.",
)
TOO_LONG = ProblemType(
    "too-long", 413, "The request is too long", "The detail says how long it may be; send it in state."
)
INVALID = ProblemType(
    "invalid-parameter",
    422,
    "A parameter is not usable",
    "`errors` names each parameter and what is wrong with it.",
)
UPGRADE = ProblemType(
    "upgrade-required", 426, "A WebSocket is needed here", "Connect with a WebSocket, or use /stream instead."
)
TOO_OFTEN = ProblemType(
    "too-many-requests",
    429,
    "Too many requests",
    "Wait as the header Retry-After says. Each token has its own limit; without one, it is your address's.",
)
INTERNAL = ProblemType(
    "internal-error", 500, "headcount made a mistake", "The log of the role `api` has the details."
)
UNREADABLE = ProblemType(
    "history-unreadable", 500, "The history can't be read", "The log of the role `api` names the file."
)
NO_COUNTS = ProblemType(
    "no-counts-yet",
    503,
    "There are no counts yet",
    "No partition has reported since the start. GET /readyz says what is missing; try again in a second.",
)
NOT_READY = ProblemType(
    "not-ready",
    503,
    "Not ready",
    "Numbers may still be served, with their age. Whoever has the scope `system:read` is told what is missing.",
)
TOO_MANY_STREAMS = ProblemType(
    "too-many-streams", 503, "Too many live streams are open", "Try again later, or poll /counts."
)
TOO_MANY_QUERIES = ProblemType(
    "too-many-queries", 503, "Too many history queries at the same time", "Try again in a second."
)
NO_ANSWER = ProblemType(
    "no-answer", 503, "The counting worker doesn't answer", "Try again in a second; GET /readyz says more."
)
LOG_AWAY = ProblemType(
    "log-away",
    503,
    "The core doesn't answer",
    "What is kept there can't be read or changed now. Try again in a second; GET /readyz says more.",
)

TYPES: Mapping[str, ProblemType] = {
    problem.name: problem
    for problem in (
        BAD_REQUEST, TOKEN_IN_URL, SIGN_IN, DEVICE_SIGN_IN, UNKNOWN_COMMAND, TOO_MANY_COMMANDS, NOT_ALLOWED, CROSS_SITE, LOGIN_FAILED, NO_LOGIN, TOO_LONG, TOO_OFTEN, LOG_AWAY, NOT_FOUND, UNKNOWN_SITE, UNKNOWN_ZONE, UNKNOWN_TOKEN, UNKNOWN_DEVICE, ALIAS_TAKEN, LINK_REFUSED, NOT_RECORDED,
        NO_SCALER, WRONG_METHOD, INVALID, UPGRADE, INTERNAL, UNREADABLE, NO_COUNTS, NOT_READY, TOO_MANY_STREAMS,
        TOO_MANY_QUERIES, NO_ANSWER,
    )
}  # fmt: skip


class ParameterProblem(BaseModel):
    """What is wrong with one parameter."""

    model_config = ConfigDict(extra="forbid")

    parameter: str
    problem: str


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(description="Relative reference that names the kind of problem; it stays the same.")
    title: str
    status: int
    detail: str = Field(description="What is wrong with this request, and what to do.")
    instance: str = Field(description="The path that was asked for.")
    errors: list[ParameterProblem] | None = Field(None, description="For `/problems/invalid-parameter`.")


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
        """Say what is wrong and what to do; `parameter` names the one that is to blame."""
        self.kind = kind
        self.detail = detail
        self.parameter = parameter
        self.headers = dict(headers or {})
        super().__init__(f"{kind.name}: {detail}")


def invalid(parameter: str, problem: str) -> ProblemError:
    """A parameter is not usable."""
    return ProblemError(INVALID, f"{parameter}: {problem}", parameter=parameter)


def document(
    kind: ProblemType, detail: str, path: str, errors: list[ParameterProblem] | None = None
) -> Problem:
    """The problem document; `path` is what was asked for, not yet percent-encoded."""
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
    """The answer that carries a problem document."""
    body = problem.model_dump_json(exclude_none=True)
    return Response(body, problem.status, dict(headers or {}), MEDIA_TYPE)


class ProblemMeaning(BaseModel):
    """What a kind of problem means."""

    model_config = ConfigDict(extra="forbid")

    type: str
    title: str
    status: int
    meaning: str

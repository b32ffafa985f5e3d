"""Turn every error of a request into a problem document."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from html import escape
from http import HTTPStatus
from pathlib import Path
from string import Template

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from headcount import errors
from headcount.api.schemas import problems
from headcount.api.schemas.problems import ParameterProblem, ProblemError, ProblemType, document, response
from headcount.devices.device_fields import CHANGEABLE

_BY_STATUS = {
    400: problems.BAD_REQUEST,
    403: problems.NOT_ALLOWED,
    404: problems.NOT_FOUND,
    405: problems.WRONG_METHOD,
    413: problems.TOO_LONG,
    422: problems.INVALID,
}
_MAX_PARAMETERS = 10
#: Paths for programs: every error is JSON there, whatever the client accepts.
API_PATH = re.compile(r"/(v1/|ogc(/|$)|metrics$|readyz$|healthz$|openapi\.json$|problems/)")
#: The page of a problem for browsers, such as a login that failed.
_PAGE = Template(Path(__file__).with_name("problem_page.html").read_text(encoding="utf-8"))
_SERVICE_ERRORS = (
    errors.LogError,
    errors.DeviceError,
    errors.AccessError,
    errors.DataFolderError,
    errors.StoreError,
    errors.QueryError,
    errors.TooManyQueriesError,
    errors.NoAnswerError,
    errors.UnknownSiteError,
)
_RETRY = {"retry-after": "1"}
#: A device error about one of these names the parameter; any other is about the body as a whole.
_PARAMETERS = {*CHANGEABLE, "kind", "expires", "interval_s", "until", "text"}

_log = logging.getLogger(__name__)


def install(app: FastAPI, crash_headers: Mapping[str, str]) -> None:
    """Make every error of this application a problem document.

    An unexpected error is answered outside of all middleware: `crash_headers` go with it.
    """

    async def from_crash(request: Request, error: Exception) -> Response:
        _log.error("%s %s failed: %r", request.method, _route(request), error)
        problem = document(problems.INTERNAL, problems.INTERNAL.meaning, request.url.path)
        return response(problem, crash_headers)

    for error in _SERVICE_ERRORS:
        app.add_exception_handler(error, _from_service)
    app.add_exception_handler(ProblemError, _from_problem)
    app.add_exception_handler(RequestValidationError, _from_validation)
    app.add_exception_handler(HTTPException, _from_http)
    app.add_exception_handler(Exception, from_crash)


def _answer(
    connection: HTTPConnection,
    kind: ProblemType,
    detail: str,
    headers: Mapping[str, str] | None = None,
    parameters: list[ParameterProblem] | None = None,
) -> Response:
    """Return a problem document, or, to a browser that opens a page, a page."""
    path: str = connection.scope["path"]
    if API_PATH.match(path) or not connection.headers.get("accept", "").startswith("text/html"):
        return response(document(kind, detail, path, parameters), headers)
    again, action = ("/login", "Try again") if path.startswith("/login") else ("/", "To the map")
    if kind in (problems.NO_LOGIN, problems.NOT_FOUND):
        again, action = "/", "To the map"
    page = _PAGE.substitute(title=escape(kind.title), detail=escape(detail), again=again, action=action)
    return HTMLResponse(page, kind.status, headers)


def problem_of(error: Exception) -> ProblemError:
    """Return the problem of an error that a service raised."""
    match error:
        case errors.DeviceError():
            return _device_problem(error)
        case errors.AccessError():
            return _access_problem(error)
        case errors.UnknownSiteError():
            return ProblemError(problems.UNKNOWN_SITE, f"There is no site {(error.site or '')[:64]!r}.")
        case errors.QueryError():
            return problems.invalid(error.parameter, error.problem)
        case errors.TooManyQueriesError():
            return ProblemError(problems.TOO_MANY_QUERIES, f"{error}. Try again in a second.", headers=_RETRY)
        case errors.NoAnswerError():
            detail = f"{error}. {problems.NO_ANSWER.meaning}"
            return ProblemError(problems.NO_ANSWER, detail, headers=_RETRY)
        case errors.DataFolderError() | errors.StoreError():
            return ProblemError(problems.UNREADABLE, problems.UNREADABLE.meaning)
        case _:
            return ProblemError(problems.LOG_AWAY, problems.LOG_AWAY.meaning, headers=_RETRY)


def _device_problem(error: errors.DeviceError) -> ProblemError:
    match error:
        case errors.UnknownDeviceError():
            return ProblemError(problems.UNKNOWN_DEVICE, f"{error.device} {error.problem}.")
        case errors.AliasTakenError():
            return ProblemError(problems.ALIAS_TAKEN, f"{error}.")
        case errors.LinkRefusedError():
            return ProblemError(problems.LINK_REFUSED, problems.LINK_REFUSED.meaning)
        case errors.DeviceError(device="command"):
            detail = f"{error.problem[:1].upper()}{error.problem[1:]}. {error.remedy}."
            return ProblemError(problems.TOO_MANY_COMMANDS, detail)
        case _:
            parameter = error.device if error.device in _PARAMETERS else "body"
            return ProblemError(problems.INVALID, f"{error}.", parameter=parameter)


def _access_problem(error: errors.AccessError) -> ProblemError:
    match error:
        case errors.RightsError():
            return ProblemError(problems.NOT_ALLOWED, f"{error}.")
        case errors.UnknownTokenError():
            return ProblemError(problems.UNKNOWN_TOKEN, f"{error}.")
        case errors.LoginError():
            detail = f"{error.problem[:1].upper()}{error.problem[1:]}. {problems.LOGIN_FAILED.meaning}"
            return ProblemError(problems.LOGIN_FAILED, detail)
        case _:
            return problems.invalid(error.what.partition(" ")[0], error.problem)


async def send_problem(scope: Scope, receive: Receive, send: Send, error: ProblemError) -> None:
    """Answer a request, or reject a WebSocket, with a problem document."""
    answer = _answer(HTTPConnection(scope), error.kind, error.detail, error.headers)
    if scope["type"] == "http":
        await answer(scope, receive, send)
        return
    await receive()  # websocket.connect
    if "websocket.http.response" in scope.get("extensions", {}):
        headers = [(name, value) for name, value in answer.raw_headers if name != b"content-length"]
        start = {"type": "websocket.http.response.start", "status": answer.status_code, "headers": headers}
        await send(start)
        await send({"type": "websocket.http.response.body", "body": answer.body})
    else:
        await send({"type": "websocket.close", "code": 1008})


def _route(request: Request) -> str:
    """The path with placeholders: a device's id or a link's secret must not be logged."""
    return getattr(request.scope.get("route"), "path", "(no route)")


async def _from_service(request: Request, error: Exception) -> Response:
    if isinstance(error, (errors.LogError, errors.DataFolderError, errors.StoreError)):
        _log.warning("%s %s: %s", request.method, _route(request), error)
    return await _from_problem(request, problem_of(error))


async def _from_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)  # noqa: S101  # what it is registered for
    return _answer(request, error.kind, error.detail, error.headers, error.errors)


async def _from_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    invalid = [
        ParameterProblem(parameter=".".join(str(part) for part in e["loc"][1:]), problem=e["msg"])
        for e in error.errors()[:_MAX_PARAMETERS]
    ]
    detail = "; ".join(f"{e.parameter}: {e.problem}" for e in invalid)
    return response(document(problems.INVALID, detail, request.url.path, invalid))


async def _from_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    kind = _BY_STATUS.get(error.status_code)
    if kind is None:
        title = HTTPStatus(error.status_code).phrase
        kind = ProblemType(f"http-{error.status_code}", error.status_code, title, "")
    path = request.url.path[: problems.MAX_INSTANCE]
    detail = f"{request.method} {path}: {kind.title}. {kind.meaning}".strip()
    return _answer(request, kind, detail, error.headers)

"""OpenAPI: our problem documents instead of FastAPI's own errors, and who may use which endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from headcount.api import problems
from headcount.api.access import RequireAny
from headcount.api.examples import failures

SCHEMES: dict[str, Any] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "hc_<id>_<secret>",
        "description": "A token, made with `headcount token add` or POST /v1/tokens. Never in an address.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "__Host-headcount",
        "description": "The web page's session, begun at /login (`headcount` without TLS). What changes "
        "something also needs the header `Headcount-CSRF` with the `csrf` of GET /v1/whoami.",
    },
}
#: What any endpoint may answer, whoever asks; and those that ask for a scope.
_ANYWHERE = ("token-in-url", "sign-in", "too-many-requests", "log-away")
_WITH_SCOPE = ("not-allowed",)
_CHANGING = ("cross-site", "too-long")


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of an application, made once."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        components = schema.setdefault("components", {})
        components["securitySchemes"] = SCHEMES
        _our_problems(components.setdefault("schemas", {}))
        wanted = _scopes(app)
        for path, item in schema["paths"].items():
            for method, operation in item.items():
                _complete(operation, method, wanted.get((path, method.upper()), ()))
        app.openapi_schema = schema
    return app.openapi_schema


def _our_problems(shapes: dict[str, Any]) -> None:
    for name in ("HTTPValidationError", "ValidationError"):
        shapes.pop(name, None)
    problem = problems.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    shapes.update(problem.pop("$defs"))
    shapes["Problem"] = problem


def _complete(operation: dict[str, Any], method: str, scopes: tuple[str, ...]) -> None:
    responses = operation["responses"]
    # FastAPI promises its own 422 for every path parameter; those without a rule are never refused.
    if "application/json" in responses.get("422", {}).get("content", {}):
        del responses["422"]
    names = _ANYWHERE + (_WITH_SCOPE if scopes else ()) + (() if method == "get" else _CHANGING)
    for status, entry in failures(*names).items():
        _merge(responses.setdefault(str(status), {"description": "", "content": {}}), entry)
    ways = [{"token": list(scopes)}, {"session": list(scopes)}]
    operation["security"] = ways if scopes else [{}, *ways]
    if scopes:
        needs = " or ".join(f"`{scope}`" for scope in scopes)
        operation["description"] = f"{operation.get('description', '')}\n\nNeeds the scope {needs}.".strip()


def _merge(entry: dict[str, Any], more: dict[str, Any]) -> None:
    """Put the examples of one answer beside those of another of the same status."""
    media = problems.MEDIA_TYPE
    if media not in entry.setdefault("content", {}):
        entry["content"][media] = more["content"][media]
        entry["description"] = entry["description"] or more["description"]
        return
    present = entry["content"][media].setdefault("examples", {})
    for name, example in more["content"][media]["examples"].items():
        if name not in present:
            present[name] = example
            entry["description"] = "; ".join(filter(None, (entry["description"], example["summary"])))


def _scopes(app: FastAPI) -> dict[tuple[str, str], tuple[str, ...]]:
    """The scopes that each endpoint asks for, one of which is enough."""
    return {
        (route.path, method): scopes
        for route in routes(app)
        for method in route.methods or ()
        if (scopes := _of(route.dependant))
    }


def routes(app: FastAPI) -> Iterator[APIRoute]:
    """All endpoints of an application, those of its routers among them."""
    for route in app.routes:
        included: Any = getattr(route, "original_router", None)
        for each in [route] if included is None else included.routes:
            if isinstance(each, APIRoute):
                yield each


def _of(dependant: Dependant) -> tuple[str, ...]:
    for inner in dependant.dependencies:
        if isinstance(inner.call, RequireAny):
            return inner.call.scopes
        if found := _of(inner):
            return found
    return ()

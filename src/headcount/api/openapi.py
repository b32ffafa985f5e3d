"""OpenAPI: our problem documents instead of FastAPI's own errors, and who may use which endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from headcount.api.media_types import GEOJSON
from headcount.api.middleware.authorization import RequireAny
from headcount.api.schemas import problems
from headcount.api.schemas.responses import failures

SCHEMES: dict[str, Any] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "hc_<id>_<secret>",
        "description": "A token, made with `headcount token add` or POST /v1/tokens. Never in an address.",
    },
    "device": {
        "type": "http",
        "scheme": "basic",
        "description": "The device itself: its id, and its secret or a signed token. For /v1/me only.",
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
        for route in routes(app):
            for method in route.methods or ():
                operation = schema["paths"].get(route.path, {}).get(method.lower())
                if operation is not None:
                    _shape_of_geojson(operation, route, components["schemas"])
                    _whole_examples(operation, route)
                    _complete(operation, method, scopes_of(route.dependant))
        app.openapi_schema = schema
    return app.openapi_schema


def _our_problems(shapes: dict[str, Any]) -> None:
    for name in ("HTTPValidationError", "ValidationError"):
        shapes.pop(name, None)
    problem = problems.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    shapes.update(problem.pop("$defs"))
    shapes["Problem"] = problem


def _shape_of_geojson(operation: dict[str, Any], route: APIRoute, shapes: dict[str, Any]) -> None:
    """FastAPI calls what isn't application/json a string; GeoJSON has the shape that the endpoint names."""
    for answer in operation["responses"].values():
        content = answer.get("content", {}).get(GEOJSON)
        if content is not None:
            shape = TypeAdapter(route.response_model).json_schema(
                mode="serialization", ref_template="#/components/schemas/{model}"
            )
            shapes.update(shape.pop("$defs", {}))
            content["schema"] = shape


def _whole_examples(operation: dict[str, Any], route: APIRoute) -> None:
    """Put examples back as they are: FastAPI leaves out what is null in them."""
    for status, answer in route.responses.items():
        for media, content in answer.get("content", {}).items():
            told = operation["responses"].get(str(status), {}).get("content", {}).get(media)
            if told is not None:
                told |= {key: content[key] for key in ("example", "examples") if key in content}


def _complete(operation: dict[str, Any], method: str, scopes: tuple[str, ...]) -> None:
    responses = operation["responses"]
    # FastAPI promises its own 422 for every path parameter; those without a rule are never refused.
    if "application/json" in responses.get("422", {}).get("content", {}):
        del responses["422"]
    names = _ANYWHERE + (_WITH_SCOPE if scopes else ()) + (() if method == "GET" else _CHANGING)
    for status, entry in failures(*names).items():
        _merge(responses.setdefault(str(status), {"description": "", "content": {}}), entry)
    ways = [{"token": list(scopes)}, {"session": list(scopes)}]
    operation.setdefault("security", ways if scopes else [{}, *ways])
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


def routes(app: FastAPI) -> Iterator[APIRoute]:
    """All endpoints of an application, those of its routers among them."""
    for route in app.routes:
        included: Any = getattr(route, "original_router", None)
        for each in [route] if included is None else included.routes:
            if isinstance(each, APIRoute):
                yield each


def scopes_of(dependant: Dependant) -> tuple[str, ...]:
    """The scopes that an endpoint asks for, one of which is enough."""
    for inner in dependant.dependencies:
        if isinstance(inner.call, RequireAny):
            return inner.call.scopes
        if found := scopes_of(inner):
            return found
    return ()

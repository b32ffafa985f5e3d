"""The OpenAPI document: problem documents instead of FastAPI's errors, and the scopes of endpoints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from headcount.api.media_types import GEOJSON, JSON_LD
from headcount.api.middleware.authorization import RequireScope
from headcount.api.middleware.device_authentication import DeviceAuthentication
from headcount.api.schemas import problems
from headcount.api.schemas.ingest import FixBody

SCHEMES: dict[str, Any] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "hc_<id>_<secret>",
        "description": "A token, created with `headcount token add` or POST /v1/tokens. Never put it into an address.",
    },
    "device": {
        "type": "http",
        "scheme": "basic",
        "description": "The device itself: its id, and its secret or a signed token.",
    },
    "ingest_key": {
        "type": "apiKey",
        "in": "query",
        "name": "id",
        "description": "A device's ingest key, with which an app can only send its fixes.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "__Host-headcount",
        "description": "The web page's session, started at /login (`headcount` without TLS). Changes "
        "also need the header `Headcount-CSRF` with the `csrf` of GET /v1/whoami.",
    },
}
#: By endpoint: its `example` or `examples`, or the name of another endpoint that has the same.
_EXAMPLES = Path(__file__).with_name("examples.json")
#: In the `openapi_extra` of an endpoint: its own problems. The others follow from its method, path and parameters.
PROBLEMS = "x-problems"
#: Problems of any endpoint, and of those that change something.
_ANYWHERE = ("token-in-url", "sign-in", "too-many-requests", "log-away")
_CHANGING = ("cross-site", "too-long")


def document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of an application; it is built once."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            servers=app.servers,
        )
        components = schema.setdefault("components", {})
        components["securitySchemes"] = SCHEMES
        _use_problems(components.setdefault("schemas", {}))
        components["schemas"]["FixBody"] = FixBody.model_json_schema()
        examples = msgspec.json.decode(_EXAMPLES.read_bytes())
        for route in routes(app):
            for method in route.methods or ():
                operation = schema["paths"].get(route.path, {}).get(method.lower())
                if operation is not None:
                    _describe_geojson(operation, route, components["schemas"])
                    _add_examples(operation, route, examples)
                    _complete(operation, route, method)
        app.openapi_schema = schema
    return app.openapi_schema


def _use_problems(schemas: dict[str, Any]) -> None:
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    problem = problems.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs"))
    schemas["Problem"] = problem


def _describe_geojson(operation: dict[str, Any], route: APIRoute, schemas: dict[str, Any]) -> None:
    """FastAPI describes anything but application/json as a string; GeoJSON and JSON-LD have the endpoint's schema."""
    for answer in operation["responses"].values():
        for content in (answer.get("content", {}).get(media_type) for media_type in (GEOJSON, JSON_LD)):
            if content is None:
                continue
            schema = TypeAdapter(route.response_model).json_schema(
                mode="serialization", ref_template="#/components/schemas/{model}"
            )
            schemas.update(schema.pop("$defs", {}))
            content["schema"] = schema


def _add_examples(operation: dict[str, Any], route: APIRoute, examples: dict[str, Any]) -> None:
    """Add the example to each success; those of problems come from their types (`_failures`)."""
    example = examples.get(route.name)
    for status, answer in operation["responses"].items():
        for content in answer.get("content", {}).values() if status < "400" else ():
            content.update(examples[example] if isinstance(example, str) else example)


def _complete(operation: dict[str, Any], route: APIRoute, method: str) -> None:
    responses, scopes = operation["responses"], required_scopes(route.dependant)
    # FastAPI documents a 422 for every path parameter; those without a pattern never fail
    if "application/json" in responses.get("422", {}).get("content", {}):
        del responses["422"]
    by_device = any(isinstance(inner.call, DeviceAuthentication) for inner in route.dependant.dependencies)
    applies = {
        "device-sign-in": by_device,
        "unknown-site": "{site}" in route.path,
        "invalid-parameter": route.path.startswith("/v1/"),
        "not-allowed": bool(scopes),
        **dict.fromkeys(_CHANGING, method != "GET"),
    }
    shared = [name for name, given in applies.items() if given]
    responses |= _failures(dict.fromkeys([*operation.pop(PROBLEMS, ()), *_ANYWHERE, *shared]))
    ways = [{"token": list(scopes)}, {"session": list(scopes)}]
    if "security" not in operation:
        operation["security"] = [{"device": []}] if by_device else ways if scopes else [{}, *ways]
    if scopes:
        scopes_text = " or ".join(f"`{scope}`" for scope in scopes)
        operation["description"] = (
            f"{operation.get('description', '')}\n\nRequires the scope {scopes_text}.".strip()
        )


def _failures(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the entries of problems in an operation's `responses`, each with an example, by status."""
    entries: dict[str, dict[str, Any]] = {}
    for kind in map(problems.TYPES.__getitem__, names):
        detail, errors = kind.example_detail, None
        if kind is problems.INVALID:
            errors = [problems.ParameterProblem(parameter="at", problem=detail.removeprefix("at: "))]
        example = problems.document(kind, detail, kind.example_path, errors).model_dump(exclude_none=True)
        content = {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}
        empty = {"description": "", "content": {problems.MEDIA_TYPE: content}}
        entry = entries.setdefault(str(kind.status), empty)
        entry["description"] = "; ".join(filter(None, (entry["description"], kind.title)))
        entry["content"][problems.MEDIA_TYPE]["examples"][kind.name] = {
            "summary": kind.title,
            "value": example,
        }
    return entries


def routes(app: FastAPI) -> Iterator[APIRoute]:
    """Yield all endpoints of an application, those of its routers included."""
    for route in app.routes:
        included: Any = getattr(route, "original_router", None)
        for each in [route] if included is None else included.routes:
            if isinstance(each, APIRoute):
                yield each


def required_scopes(dependant: Dependant) -> tuple[str, ...]:
    """Return the scopes of an endpoint, one of which is required."""
    for inner in dependant.dependencies:
        if isinstance(inner.call, RequireScope):
            return inner.call.scopes
        if found := required_scopes(inner):
            return found
    return ()

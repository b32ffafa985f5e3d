"""OpenAPI: everything is described, and the examples are valid responses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter

from api_fixture import app_without_broker, ask
from headcount.api import openapi
from headcount.api.middleware.authorization import RequireScope
from headcount.api.schemas import counts, problems

#: Not described: pages and what browsers are sent to.
OTHERS = {"/login", "/login/callback", "/logout", "/problems/{name}", "/openapi.json"}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """The application."""
    return app_without_broker(tmp_path_factory.mktemp("app"))


@pytest.fixture(scope="module")
def schema(app: FastAPI) -> dict[str, Any]:
    """The document as it is served, which also must be JSON."""
    document: dict[str, Any] = json.loads(json.dumps(app.openapi(), allow_nan=False))
    return document


@pytest.fixture(scope="module")
def routes(app: FastAPI) -> dict[tuple[str, str], APIRoute]:
    """All routes of endpoints, by path and method."""
    return {
        (route.path, method.lower()): route for route in openapi.routes(app) for method in route.methods or ()
    }


def operations(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each path, method and operation of the document."""
    for path, item in schema["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def test_all_endpoints_are_there(schema: dict[str, Any], routes: dict[tuple[str, str], APIRoute]) -> None:
    """The document has the routes of the application and no others."""
    described = {(path, method) for path, method, _ in operations(schema)}
    # /ogc has a document of its own
    assert described == {key for key in routes if key[0] not in OTHERS and not key[0].startswith("/ogc")}
    assert {("/v1/sites", "get"), ("/v1/sites/{site}/counts", "get"), ("/v1/tokens", "post")} <= described


def test_everything_is_described(schema: dict[str, Any]) -> None:
    """Every endpoint has a summary and a description, every parameter has a description."""
    for path, _, operation in operations(schema):
        assert operation["summary"], path
        assert len(operation["description"]) > 40, path
        for parameter in operation.get("parameters", []):
            described = parameter.get("description") or parameter["schema"].get("enum")
            assert described, (path, parameter["name"])


def test_it_documents_the_scope_of_each_endpoint(
    schema: dict[str, Any], routes: dict[tuple[str, str], APIRoute]
) -> None:
    """Every endpoint documents its scope, its 401 and 403, and how to authenticate."""
    assert {"token", "session", "device"} <= set(schema["components"]["securitySchemes"])
    for path, method, operation in operations(schema):
        asked = [
            inner.call.scopes
            for inner in routes[path, method].dependant.dependencies
            if isinstance(inner.call, RequireScope)
        ]
        assert {"401", "429"} <= set(operation["responses"]), path
        if asked:
            assert operation["security"] == [{"token": list(asked[0])}, {"session": list(asked[0])}]
            assert f"`{asked[0][0]}`" in operation["description"]
            assert "403" in operation["responses"], path
        elif path == "/v1/osmand":
            assert operation["security"] == [{"ingest_key": []}], path
        elif path.startswith(("/v1/me", "/v1/fixes", "/v1/owntracks")):
            assert operation["security"] == [{"device": []}], path
        else:
            assert {} in operation["security"], path


def test_good_answers_have_valid_examples(
    schema: dict[str, Any], routes: dict[tuple[str, str], APIRoute]
) -> None:
    """Every endpoint's good answer has an example that fits its shape."""
    for path, method, operation in operations(schema):
        model = routes[path, method].response_model
        good = [status for status in operation["responses"] if status < "400"]
        assert good, path
        empty = {"101", "204"} | ({"200"} if path == "/v1/osmand" else set())
        for status in set(good) - empty:
            (content,) = operation["responses"][status].get("content", {}).values()
            examples_ = (
                [content["example"]]
                if "example" in content
                else [e["value"] for e in content["examples"].values()]
            )
            assert examples_, path
            for example in examples_ if model is not None else []:
                TypeAdapter(model).validate_python(example, strict=True)


def test_errors_have_valid_examples(schema: dict[str, Any]) -> None:
    """Every error has an example per type that is a problem document of that status."""
    seen = set()
    for path, _, operation in operations(schema):
        for status, answer in operation["responses"].items():
            if status < "400":
                continue
            (content,) = answer["content"].values()
            assert list(answer["content"]) == ["application/problem+json"], path
            for name, example in content["examples"].items():
                problem = problems.Problem.model_validate(example["value"], strict=True)
                assert (str(problem.status), problem.type) == (status, f"/problems/{name}")
                seen.add(name)
    unlisted = {
        "bad-request",
        "not-found",
        "method-not-allowed",
        "internal-error",
        "login-failed",
        "no-login",
        "format-unavailable",  # of /ogc
    }
    assert seen | unlisted == set(problems.TYPES)


def test_parameters_can_be_refused(schema: dict[str, Any]) -> None:
    """Where a parameter or a body can be wrong, 422 is described as our problem, not as FastAPI's own error."""
    assert "HTTPValidationError" not in json.dumps(schema)
    for path, _, operation in operations(schema):
        parameters = operation.get("parameters", [])
        if any(p["in"] == "query" for p in parameters) or "/devices/" in path or "requestBody" in operation:
            assert "422" in operation["responses"], path


def test_stream_example_is_made_of_valid_events(schema: dict[str, Any]) -> None:
    """The events in the example of the stream fit the shapes of updates and pings."""
    answer = schema["paths"]["/v1/sites/{site}/stream"]["get"]["responses"]["200"]
    lines = answer["content"]["text/event-stream"]["example"].splitlines()
    updates = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    shapes: tuple[type[BaseModel], ...] = (counts.StreamCounts, counts.StreamCounts, counts.StreamPing)
    for shape, update in zip(shapes, updates, strict=True):
        shape.model_validate_json(update, strict=True)


def test_references_lead_somewhere(schema: dict[str, Any]) -> None:
    """Every reference in the document leads to a schema in it."""
    names = set(schema["components"]["schemas"])
    text = json.dumps(schema)
    for part in text.split('"#/components/schemas/')[1:]:
        assert part.partition('"')[0] in names


def test_no_page_from_elsewhere(tmp_path: Path) -> None:
    """There is no documentation page that loads scripts from elsewhere, only the document."""
    assert ask(tmp_path, "/docs").status_code == 404
    assert ask(tmp_path, "/redoc").status_code == 404
    assert ask(tmp_path, "/openapi.json").json()["openapi"].startswith("3.")


def test_generated_clients_get_plain_names(schema: dict[str, Any]) -> None:
    """Each operation is called as its handler, uniquely, and the document states where the API is."""
    names = [operation["operationId"] for _, _, operation in operations(schema)]
    assert {"list_devices", "get_counts", "create_token"} <= set(names)
    assert len(set(names)) == len(names)
    assert schema["servers"] == [{"url": "/"}]


def test_servers_are_the_public_address(tmp_path: Path) -> None:
    """Behind a proxy, the document states the address that clients use."""
    document = ask(tmp_path, "/openapi.json", changes={"public_url": "https://counts.example.edu/"}).json()
    assert document["servers"] == [{"url": "https://counts.example.edu"}]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/sites/ul/counts?zones=library", "zones"),
        ("/v1/sites?limit=1", "limit"),
        ("/v1/whoami?AT=1", "AT"),
    ],
)
def test_unknown_parameters_are_refused(tmp_path: Path, path: str, name: str) -> None:
    """A parameter that an endpoint does not have is an error that names it, and the ones that exist."""
    answer = ask(tmp_path, path)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == name
    assert ("at" in answer.json()["detail"].split("do: ")[-1]) == path.startswith("/v1/sites/ul")

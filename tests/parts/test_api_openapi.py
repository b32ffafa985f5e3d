"""OpenAPI: everything is described, and the examples are what the server would say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute

from api_fixture import app_without_broker, ask
from headcount.api import examples, fixes, problems, shapes, sites, stream, system

ROUTES = {
    route.path: route
    for module in (sites, stream, fixes, system)
    for route in module.router.routes
    if isinstance(route, APIRoute)
}


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The document as it is served, which also must be JSON."""
    app = app_without_broker(tmp_path_factory.mktemp("app"))
    document: dict[str, Any] = json.loads(json.dumps(app.openapi(), allow_nan=False))
    return document


def test_all_endpoints_are_there(schema: dict[str, Any]) -> None:
    """The document has the routes of all routers and no others."""
    assert set(schema["paths"]) == set(ROUTES)
    assert {"/v1/sites", "/v1/sites/{site}/counts", "/v1/sites/{site}/stream", "/readyz"} <= set(ROUTES)


def test_everything_is_described(schema: dict[str, Any]) -> None:
    """Every endpoint has a summary and a description, every parameter and field of text says what it is."""
    for path, item in schema["paths"].items():
        for operation in item.values():
            assert operation["summary"], path
            assert len(operation["description"]) > 40, path
            for parameter in operation.get("parameters", []):
                described = parameter.get("description") or parameter["schema"].get("enum")
                assert described, (path, parameter["name"])


def test_good_answers_have_valid_examples(schema: dict[str, Any]) -> None:
    """Every endpoint's good answer has an example that fits its shape."""
    for path, item in schema["paths"].items():
        model = ROUTES[path].response_model
        good = item["get"]["responses"].get("200")
        if good is None:
            assert path.endswith("/ws")
            continue
        (content,) = good["content"].values()
        assert "example" in content, path
        if model is not None:
            model.model_validate(content["example"], strict=True)


def test_errors_have_valid_examples(schema: dict[str, Any]) -> None:
    """Every error has an example per type that is a problem document of that status."""
    seen = set()
    for path, item in schema["paths"].items():
        for status, answer in item["get"]["responses"].items():
            if status in ("200", "101"):
                continue
            (content,) = answer["content"].values()
            assert list(answer["content"]) == ["application/problem+json"], path
            for name, example in content["examples"].items():
                problem = problems.Problem.model_validate(example["value"], strict=True)
                assert (str(problem.status), problem.type) == (status, f"/problems/{name}")
                seen.add(name)
    unlisted = {"bad-request", "not-found", "method-not-allowed", "internal-error"}
    assert seen | unlisted == set(problems.TYPES)


def test_parameters_can_be_refused(schema: dict[str, Any]) -> None:
    """Where a parameter can be wrong, 422 is described as our problem, not as FastAPI's own error."""
    assert "HTTPValidationError" not in json.dumps(schema)
    for item in schema["paths"].values():
        parameters = item["get"].get("parameters", [])
        if any(p["in"] == "query" for p in parameters) or "/devices/" in str(item):
            assert "422" in item["get"]["responses"]


def test_stream_example_is_made_of_valid_events() -> None:
    """The events in the example of the stream fit the shapes of updates and pings."""
    shapes.StreamCountsShape.model_validate(examples.STREAM_COUNTS, strict=True)
    shapes.StreamCountsShape.model_validate(examples.STREAM_CHANGES, strict=True)
    shapes.PingShape.model_validate(examples.PING, strict=True)


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

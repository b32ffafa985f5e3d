"""Clients that are generated from the OpenAPI document, in Python and TypeScript, pass the type checkers."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from api_fixture import app_without_broker

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "web" / "node_modules"
#: A program that uses the generated Python client; mypy checks its types.
PYTHON = """
from client import AuthenticatedClient
from client.api.counts import get_counts
from client.models.counts_response import CountsResponse

client = AuthenticatedClient(base_url="http://127.0.0.1:8080", token="hc_…")
answer = get_counts.sync(site="ul", client=client)
assert isinstance(answer, CountsResponse)
people: dict[str, int | str | None] = {zone.zone: zone.person.count for zone in answer.zones}
"""
TYPESCRIPT = """
import type { operations, paths } from "./schema";

type Counts = operations["get_counts"]["responses"]["200"]["content"]["application/json"];
export const shares = (counts: Counts): (number | null | undefined)[] => counts.zones.map((zone) => zone.person.share);
export const path: keyof paths = "/v1/sites/{site}/history";
"""


@pytest.fixture
def document(tmp_path: Path) -> Path:
    """The OpenAPI document as a file."""
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(app_without_broker(tmp_path).openapi()))
    return file


def run(*command: str | Path, folder: Path) -> str:
    """The output of a program that succeeds."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("openapi_python_client") is None, reason="no openapi-python-client: make env"
)
def test_python_client(document: Path, tmp_path: Path) -> None:
    """openapi-python-client generates every endpoint without a warning, and mypy accepts client and use."""
    as_bytes = ("text/csv", "text/plain", "application/x-ndjson")
    overrides = dict.fromkeys(as_bytes, "application/octet-stream")
    options = {"content_type_overrides": overrides, "post_hooks": []}
    (tmp_path / "config.json").write_text(json.dumps(options))
    arguments: list[str | Path] = ["--path", document, "--output-path", tmp_path / "client", "--meta", "none"]
    command: list[str | Path] = [sys.executable, "-m", "openapi_python_client", "generate", *arguments]
    assert "arning" not in run(*command, "--config", tmp_path / "config.json", folder=tmp_path)
    (tmp_path / "use.py").write_text(PYTHON)
    run(sys.executable, "-m", "mypy", "--strict", "--no-incremental", "client", "use.py", folder=tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(
    not (TOOLS / "openapi-typescript").is_dir(), reason="no openapi-typescript: make web/node_modules"
)
def test_typescript_client(document: Path, tmp_path: Path) -> None:
    """openapi-typescript generates all types, and the strict compiler accepts them and their use."""
    run("node", TOOLS / "openapi-typescript" / "bin" / "cli.js", document, "-o", "schema.ts", folder=tmp_path)
    (tmp_path / "use.ts").write_text(TYPESCRIPT)
    compiler: list[str | Path] = ["node", TOOLS / "typescript" / "bin" / "tsc"]
    run(*compiler, "--strict", "--noEmit", "--target", "es2022", "use.ts", folder=tmp_path)

"""The API against its own OpenAPI documents: whatever is sent, the answer is one that is promised there."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sysconfig
from pathlib import Path

import pytest

from system.running import Up, headcount
from system.senders import fix

#: 503, documented as "later", is not a server error.
CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "503"]
"""

pytestmark = pytest.mark.slow

PROGRAM = Path(sysconfig.get_path("scripts")) / "schemathesis"
#: Answers that never end, and addresses that aren't HTTP.
LEFT_OUT = r"(/stream|/ws)$"
#: Public endpoints; anonymous requests to others count as failures and become 429.
FOR_ANYBODY = r"^/(healthz|readyz|v1/sites(/[^/]+(/counts|/zones/[^/]+(/history)?)?)?|v1/whoami)$"
#: Endpoints for the credentials of a device.
FOR_DEVICES = r"^/v1/(fixes|osmand)$"
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance"
)


@pytest.mark.parametrize(
    ("role", "document"),
    [
        ("admin", "openapi.json"),
        ("public", "openapi.json"),
        ("device", "openapi.json"),
        ("admin", "ogc/api"),
    ],
)
def test_every_answer_is_promised(tmp_path: Path, role: str, document: str) -> None:
    """Generated requests, good and bad, get documented responses: no 5xx, no other status, schema or media type."""
    if not PROGRAM.exists():
        pytest.skip("schemathesis isn't installed")
    seed = secrets.randbelow(2**31)
    print(f"seed {seed}")
    with Up(tmp_path, open=False) as up:
        # one worker: CPython 3.11 counts the depth of a syntax tree for all threads together, and fails
        options = ["--max-examples", "6", "--workers", "1", "--seed", str(seed)]
        if role == "public":
            options += ["--include-path-regex", FOR_ANYBODY]
        elif role == "device":
            options += ["--include-path-regex", FOR_DEVICES, "--auth", _device(up)]
        else:
            options += ["--header", f"Authorization: Bearer {_token(up, role)}"]
        if document == "ogc/api":
            options += ["--header", "Headcount-Reason: a test"]
        (tmp_path / "schemathesis.toml").write_text(CONFIG)
        (tmp_path / "document.json").write_text(up.get(f"/{document}").text)
        run = subprocess.run(
            [
                str(PROGRAM),
                "run",
                *("document.json", "--url", f"http://127.0.0.1:{up.ports['http']}"),
                *("--exclude-path-regex", LEFT_OUT, "--checks", CHECKS, "--request-timeout", "20"),
                *("--phases", "examples,coverage,fuzzing"),
                *options,
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        print(re.sub(r"hc_[\w-]+", "hc_…", run.stdout[-3000:]))
        assert run.returncode == 0, run.stdout[-12000:] + run.stderr[-2000:]
        assert up.is_ready()
        assert fix("main-building")


def _device(up: Up) -> str:
    options = ("--json", "--data", up.data, "--nats-port", str(up.ports["nats"]))
    made = headcount("device", "add", "--kind", "person", "--gateway", *options, cwd=up.folder)
    assert made.returncode == 0, made.stderr
    found = json.loads(made.stdout)
    return f"{found['id']}:{found['secret']}"


def _token(up: Up, role: str) -> str:
    made = headcount(
        *("token", "add", "test", "--role", role, "--data", up.data),
        *("--nats-port", str(up.ports["nats"])),
        cwd=up.folder,
    )
    assert made.returncode == 0, made.stderr
    found = re.search(r"hc_[\w-]+", made.stdout)
    assert found is not None
    return found[0]

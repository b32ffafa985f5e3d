"""Settings of all tests: how hypothesis searches for counter-examples, and the meaning of a skip."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from headcount.access.rate_limiter import RateLimiter
from headcount.runtime import ports

# A busy machine is no reason to fail, and a failure must be repeatable from what it printed.
settings.register_profile(
    "headcount", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("ci", settings.get_profile("headcount"), derandomize=False)
settings.register_profile("long", settings.get_profile("headcount"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


# Files run side by side: what one has chosen and doesn't listen on yet, another must not choose. Half
# of the range stays for the programs that tests start, which choose from all of it.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    share = len(ports.RANGE) // 2 // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    first = ports.RANGE.start + share * int(worker.removeprefix("gw"))
    ports.RANGE = range(first, first + share)

#: A file that matches, or imports one of our fixtures that does, starts servers.
_SERVERS = re.compile(
    r"^(from|import) (nats_fixture|proxy_fixture|history_process|read_only)"
    r"|^from (system|device\.(machine|receiver|relay))\b|HTTPServer\(|Popen\(|create_subprocess_exec\(",
    re.MULTILINE,
)
_FIXTURES = re.compile(r"^(?:from|import) (\w+_fixture)\b", re.MULTILINE)
_FOLDER = Path(__file__).parent


@cache
def starts_servers(path: Path) -> bool:
    """Whether a test file, or a fixture that it imports, starts servers."""
    source = path.read_text()
    fixtures = (_FOLDER / f"{name}.py" for name in _FIXTURES.findall(source))
    return bool(_SERVERS.search(source)) or any(map(starts_servers, fixtures))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of files that start servers: `make test T=fast` leaves them out."""
    for item in items:
        if starts_servers(item.path):
            item.add_marker("server")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Where asynchronous tests run: on asyncio, as the product does."""
    return "asyncio"


@pytest.fixture
def no_refill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rate limits that never refill: a busy machine may need any time for a burst."""
    take, peek = RateLimiter.take, RateLimiter.peek
    monkeypatch.setattr(RateLimiter, "take", lambda self, key, _, amount=1: take(self, key, 1.0, amount))
    monkeypatch.setattr(RateLimiter, "peek", lambda self, key, _, amount=1: peek(self, key, 1.0, amount))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where every counterpart must be there (HEADCOUNT_NO_SKIPS), a skipped test has failed."""
    report = yield
    if report.skipped and os.environ.get("HEADCOUNT_NO_SKIPS"):
        report.outcome = "failed"
    return report

"""Every error is a problem document of a stable type, whatever is asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from api_fixture import app_without_broker, ask
from headcount.api.parameters import moment
from headcount.api.problem_handlers import problem_of
from headcount.api.schemas import problems
from headcount.errors import DataFolderError, QueryError, TooManyQueriesError
from headcount.history.objects import FolderStore
from headcount.history.reader import SegmentReader
from headcount.messages.times import iso
from headcount.services.history import HistoryQueries

LONG = "9" * 400
COUNTS = "/v1/sites/ul/counts"
HISTORY = "/v1/sites/ul/zones/library/history"
FIXES = "/v1/sites/ul/fixes"
STREAM = "/v1/sites/ul/stream"
SQL = "x' OR 1=1; DROP TABLE fixes; --"

BAD_PARAMETERS = [
    *[
        (COUNTS, {"at": bad})
        for bad in ("nan", "inf", "-1", "1e400", LONG, SQL, "yesterday", "", "9999999999")
    ],
    *[
        (COUNTS, {"at": bad})
        for bad in ("2026-02-30T00:00:00Z", "2026-11-24T13:00:00", "2026-11-24", "1795525200000")
    ],
    (COUNTS, {"at": "4000000000"}),
    *[(HISTORY, {"step": bad}) for bad in ("nan", "0", "-5", "1e9", "inf", SQL, "")],
    (HISTORY, {"from": "200", "to": "100"}),
    (HISTORY, {"from": "nan"}),
    (HISTORY, {"from": "0", "to": "4000000000", "step": "10"}),
    *[
        (FIXES, {"bbox": bad})
        for bad in ("1,2,3", "nan,1,2,3", "-8.5,53,-8.6,52", "0,99,1,100", SQL, "", ",,,")
    ],
    *[(FIXES, {"near": bad}) for bad in ("1,2", "1,2,-3", "1,2,inf", "91,0,5", "1,2,3,4")],
    *[
        (FIXES, {"within": bad})
        for bad in ("moon", SQL, "{", '{"type":"Point","coordinates":[1,2]}', "{}", "{" * 5000)
    ],
    (FIXES, {"within": '{"type":"Polygon","coordinates":[[[0,0],[1,1],[1,0],[0,1],[0,0]]]}'}),
    (FIXES, {"within": "x" * 30_000}),
    (FIXES, {"bbox": "-9,52,-8,53", "near": "52,-8,10"}),
    (FIXES, {"at": "100", "from": "50"}),
    *[(FIXES, {"limit": bad}) for bad in ("0", "-1", "1e3", "10001", LONG)],
    (FIXES, {"kind": "dog"}),
    *[(STREAM, {"every": bad}) for bad in ("0", "nan", "61", "0.01", "inf", "-1", SQL)],
    *[(STREAM, {"zones": bad}) for bad in ("moon", "", "library,", SQL)],
    ("/v1/sites/ul/devices/dog/phone-1", {}),
    ("/v1/sites/ul/devices/person/a.b", {}),
    ("/v1/sites/ul/devices/person/*", {}),
    ("/v1/sites/ul/devices/person/%3E", {}),
    ("/v1/sites/ul/devices/person/" + "a" * 65, {}),
    ("/v1/sites/ul/devices/person/phone%0A", {}),
]


def is_problem(answer: httpx.Response, status: int, name: str) -> problems.Problem:
    """The problem document that an answer must be."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = problems.Problem.model_validate_json(answer.text)
    assert (problem.status, problem.type) == (status, f"/problems/{name}")
    assert problem.detail
    return problem


@pytest.mark.parametrize(("path", "parameters"), BAD_PARAMETERS)
def test_bad_parameters(tmp_path: Path, path: str, parameters: dict[str, str]) -> None:
    """A parameter that can't be used is answered 422, naming it."""
    problem = is_problem(ask(tmp_path, path, params=parameters), 422, "invalid-parameter")
    assert problem.errors
    assert len(problem.model_dump_json()) < 2000


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/sites/moon", "unknown-site"),
        ("/v1/sites/moon/counts", "unknown-site"),
        ("/v1/sites/moon/stream", "unknown-site"),
        ("/v1/sites/moon/ws", "unknown-site"),
        ("/v1/sites/moon/fixes", "unknown-site"),
        ("/v1/sites/moon/zones/library/history", "unknown-site"),
        ("/v1/sites/%27%20OR%201=1", "unknown-site"),
        ("/v1/sites/" + "x" * 5000, "unknown-site"),
        ("/v1/sites/ul/zones/moon", "unknown-zone"),
        ("/v1/sites/ul/zones/%27;--/history", "unknown-zone"),
        ("/v1/sites/ul/zones/%00", "unknown-zone"),
        ("/v1/sites/ul/zones/%ff%fe", "unknown-zone"),
        ("/v1/nothing", "not-found"),
        ("/nothing", "not-found"),
        ("/v1/sites/ul/nothing", "not-found"),
        ("/problems/nothing", "not-found"),
    ],
)
def test_unknown_paths(tmp_path: Path, path: str, name: str) -> None:
    """Unknown paths are 404, with the part of the path that is unknown."""
    problem = is_problem(ask(tmp_path, path), 404, name)
    assert len(problem.model_dump_json()) < 1500


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/v1/sites", COUNTS, STREAM, "/healthz", "/"])
def test_wrong_methods(tmp_path: Path, method: str, path: str) -> None:
    """Nothing can be changed: other methods are answered 405 with the header Allow."""
    answer = ask(tmp_path, path, method=method)
    is_problem(answer, 405, "method-not-allowed")
    assert "GET" in answer.headers["allow"]


async def test_crash_is_a_problem_without_details(tmp_path: Path) -> None:
    """An unforeseen error is answered 500 with security headers and nothing of its text."""
    app: FastAPI = app_without_broker(tmp_path)

    @app.get("/boom")
    async def boom() -> None:
        raise RuntimeError("a secret")

    app.router.routes.insert(0, app.router.routes.pop())

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
            return await http.get("/boom")

    answer = await get()
    is_problem(answer, 500, "internal-error")
    assert "secret" not in answer.text
    assert "content-security-policy" in answer.headers


def test_every_type_is_explained(tmp_path: Path) -> None:
    """The address in `type` explains the problem."""
    for name, kind in problems.TYPES.items():
        explained = ask(tmp_path, f"/problems/{name}").json()
        assert explained == {
            "type": f"/problems/{name}",
            "title": kind.title,
            "status": kind.status,
            "meaning": kind.meaning,
        }


async def test_too_many_queries(tmp_path: Path) -> None:
    """While as many queries run as are allowed, a further one is refused, and later ones pass again."""
    few = HistoryQueries(1, SegmentReader(FolderStore(tmp_path)))
    loop, gate = asyncio.get_running_loop(), asyncio.Event()

    def slow(_: object) -> int:
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(timeout=60)
        return 1

    first = asyncio.create_task(few.run(slow))
    await asyncio.sleep(0)
    with pytest.raises(TooManyQueriesError) as refused:
        await few.run(lambda _: 2)
    assert problem_of(refused.value).kind is problems.TOO_MANY_QUERIES
    gate.set()
    assert await first == 1
    await asyncio.sleep(0)
    assert await few.run(lambda _: 3) == 3
    few.close()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (QueryError("step", "is odd"), problems.INVALID),
        (DataFolderError("here", "is broken", "Repair it."), problems.UNREADABLE),
    ],
)
def test_history_errors_are_problems(error: Exception, kind: problems.ProblemType) -> None:
    """An invalid query is a problem of its parameter, an unreadable segment one of the server."""
    assert problem_of(error).kind is kind


@given(st.integers(0, 4_102_444_799_999))
def test_moments_round_trip(ms: int) -> None:
    """A moment that we write is read as the same moment, also with an offset, also as a number."""
    assert moment(iso(ms / 1000)) == pytest.approx(ms / 1000, abs=0.0005)
    assert moment(str(ms / 1000)) == ms / 1000
    local = iso(ms / 1000).replace("Z", "+01:00")
    if ms >= 3_600_000:
        assert moment(local) == pytest.approx(ms / 1000 - 3600, abs=0.0005)
        assert moment(local.replace("+", " ")) == moment(local)


@given(st.text(max_size=80))
def test_any_text_is_a_moment_or_an_error(text: str) -> None:
    """Whatever is written for a moment gives a time between 1970 and 2100, or ValueError."""
    try:
        t_s = moment(text)
    except ValueError:
        return
    assert 0 <= t_s <= 4_102_444_800

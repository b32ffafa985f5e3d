"""Forecasts over real HTTP, from stored minutes and from counts that are not derived yet."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from api_fixture import moment, open_api
from headcount.api.schemas.counts import ForecastResponse
from headcount.counting.fix_columns import I8
from headcount.history.catalog import Catalog
from headcount.history.forecast import SLOT_S
from headcount.history.minutes import COUNT_COLUMNS, minutes
from headcount.history.objects import FolderStore
from headcount.messages.times import DAY_S, iso

FORECAST = "/v1/sites/ul/zones/library/forecast"
HIDDEN: dict[str, Any] = {"open": False, "smallest_shown": 5}
ZONES = ("site", "library", "z1")
#: Seconds between two stored instants of these tests.
INSTANT_S = 300

#: People in each zone (the site first) at instants in Unix seconds.
Counts = Callable[[I8], list[I8]]


def counts_table(counts: Counts, from_s: int, to_s: int) -> pa.Table:
    """Counts at the instants in (from, to], without vehicles."""
    at_s = np.arange(from_s // INSTANT_S + 1, to_s // INSTANT_S + 1) * INSTANT_S
    n = len(at_s)
    tables = [
        pa.table(
            [
                pa.array(at_s * 1000, pa.timestamp("ms", "UTC")),
                pa.array(["ul"] * n),
                pa.array([zone] * n),
                pa.array(people, pa.int32()),
                pa.array([0] * n, pa.int32()),
                pa.array([1] * n, pa.int16()),
                pa.array([1] * n, pa.int16()),
            ],
            names=COUNT_COLUMNS,
        )
        for zone, people in zip(ZONES, counts(at_s), strict=True)
    ]
    return pa.concat_tables(tables).sort_by("at")


def store(data: Path, counts: Counts, days: int) -> int:
    """Store days of minutes up to the last whole hour, then counts; returns that hour in Unix seconds."""
    now_s = int(time.time())
    hour_s = now_s // 3600 * 3600
    catalog = Catalog(FolderStore(data / "history"))
    segments = []
    for day in range(days):
        end_s = hour_s - day * DAY_S
        table = minutes(counts_table(counts, end_s - DAY_S - 60, end_s - 60))
        segments.append(catalog.write("minutes", table, (end_s - DAY_S, end_s - 60)))
    table = counts_table(counts, hour_s - 60, now_s)
    if len(table):
        segments.append(catalog.write("counts", table, (hour_s, now_s)))
    catalog.commit(lambda before: before.with_segments(*segments))

    def mark(before: Any) -> Any:
        before.derived["minutes"] = float(hour_s)
        return before

    catalog.commit(mark)
    return hour_s


def daily(at_s: I8) -> list[I8]:
    """A course of the day: 30 people in the library at noon, 3 in z1."""
    library = np.rint(30 * np.clip(np.sin((at_s % DAY_S / DAY_S - 0.25) * 2 * np.pi), 0, 1)).astype(np.int64)
    z1 = np.full(len(at_s), 3)
    return [library + z1 + 10, library, z1]


def people(answer: dict[str, Any], name: str) -> list[Any]:
    """One number of all steps."""
    return [row["person"][name] for row in answer["rows"]]


async def test_the_usual_course_is_forecast(tmp_path: Path) -> None:
    """The next four hours are those of the days before, each step with its mean, interval and checks."""
    store(tmp_path / "data", daily, 10)
    async with open_api(tmp_path, zones=2) as api:
        answer = await api.json(FORECAST)
        ForecastResponse.model_validate(answer)
        newest = int(moment(answer["at"]))
        assert newest % SLOT_S == 0
        assert 0 <= time.time() - newest < 2 * SLOT_S
        steps = [newest + SLOT_S * step for step in range(1, 17)]
        assert [row["at"] for row in answer["rows"]] == [iso(at_s) for at_s in steps]
        assert (answer["at"], answer["step_s"], answer["level"]) == (iso(newest), SLOT_S, 0.8)
        wanted = [daily(at_s + np.arange(-2, 1) * INSTANT_S)[1].mean() for at_s in steps]
        assert people(answer, "expected") == pytest.approx(wanted, abs=0.1)
        assert people(answer, "low") == pytest.approx(wanted, abs=1)
        assert people(answer, "high") == pytest.approx(wanted, abs=1)
        assert min(people(answer, "checks")) >= 30
        assert {row["vehicle"]["expected"] for row in answer["rows"]} == {0}


async def test_counts_that_are_not_derived_yet_are_used(tmp_path: Path) -> None:
    """The forecast rests on counts up to the last quarter of an hour, also before their hour is derived."""

    def grows(at_s: I8) -> list[I8]:
        last = np.where(at_s > time.time() - 2 * SLOT_S, 200, 20)
        return [last, last, last]

    store(tmp_path / "data", grows, 3)
    async with open_api(tmp_path, zones=2) as api:
        answer = await api.json(FORECAST + "?hours=0.25")
        (expected,) = people(answer, "expected")
        assert expected > 22


async def test_a_new_deployment_has_no_forecast(tmp_path: Path) -> None:
    """Without stored counts all numbers are null, and `from` is `at`."""
    async with open_api(tmp_path, zones=2) as api:
        answer = await api.json(FORECAST + "?hours=24")
        ForecastResponse.model_validate(answer)
        assert len(answer["rows"]) == 96
        assert set(people(answer, "expected")) == {None}
        assert answer["from"] == answer["at"]


async def test_invalid_requests_are_refused(tmp_path: Path) -> None:
    """An unknown zone is 404; hours and levels out of range are 400, with the parameter's name."""
    async with open_api(tmp_path, zones=2) as api:
        assert (await api.get("/v1/sites/ul/zones/moon/forecast")).status_code == 404
        for query in ("hours=0", "hours=25", "level=1", "level=nan", "hours=inf"):
            answer = await api.get(f"{FORECAST}?{query}")
            assert answer.status_code in (400, 422), query
            assert query.split("=")[0] in answer.text


async def test_the_public_gets_multiples_of_five(tmp_path: Path) -> None:
    """Without counts:exact, numbers are multiples of 5, or "<5"; z1 with 3 people is "<5" at all times."""
    store(tmp_path / "data", daily, 4)
    async with open_api(tmp_path, zones=2, **HIDDEN) as api:
        answer = await api.json(FORECAST + "?hours=24")
        ForecastResponse.model_validate(answer)
        shown = {number for name in ("expected", "low", "high") for number in people(answer, name)}
        assert "<5" in shown
        assert all(number % 5 == 0 and number >= 5 for number in shown if number != "<5")
        assert max(number for number in shown if number != "<5") in range(25, 50)
        small = await api.json("/v1/sites/ul/zones/z1/forecast")
        assert set(people(small, "expected")) == {"<5"}


async def test_the_public_forecast_depends_on_public_counts_alone(tmp_path: Path) -> None:
    """Exact counts that are published as the same numbers have the same public forecast."""
    answers = []
    for number in (0, 1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        store(folder / "data", lambda at_s, number=number: [np.full(len(at_s), number)] * 3, 3)  # type: ignore[misc]
        async with open_api(folder, zones=2, **HIDDEN) as api:
            answer = await api.json(FORECAST)
            answers.append([answer["rows"][i]["person"] for i in range(8)])
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("limits", [HIDDEN, {}], ids=["public", "exact"])
async def test_without_history_nothing_is_expected(tmp_path: Path, limits: dict[str, Any]) -> None:
    """A new deployment answers with rows without numbers, in public and with exact counts."""
    async with open_api(tmp_path, **limits) as api:
        found = ForecastResponse.model_validate(await api.json(FORECAST, params={"hours": 1}))
        assert [row.person.expected for row in found.rows] == [None] * 4

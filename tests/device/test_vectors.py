"""The shared test vectors of the device behaviour."""

from __future__ import annotations

import json
from typing import Any

import pytest

from device.make_vectors import FOLDER, vectors

VECTORS = vectors()


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_are_those_of_the_policy(name: str) -> None:
    """Each file of vectors has exactly what the policy returns; `make_vectors.py` writes it."""
    assert (FOLDER / name).read_text() == VECTORS[name], "run python tests/device/make_vectors.py"


def test_there_is_no_other_file() -> None:
    """Each file of vectors is made from the policy."""
    assert {path.name for path in FOLDER.iterdir()} == set(VECTORS)


def _reports(name: str) -> list[tuple[int, str, list[str]]]:
    tracks: list[dict[str, Any]] = json.loads(VECTORS["reports.json"])
    (track,) = [each for each in tracks if each["name"] == name]
    return [tuple(report) for report in track["reports"]]


def test_a_stationary_device_reports_within_its_hold() -> None:
    """A person who stays reports once a minute, and a device with a short hold three times within it."""
    assert [index for index, *_ in _reports("a person stays in the library")] == [0, 6, 12, 18, 24, 30, 36]
    assert [index for index, *_ in _reports("a short hold")] == [0, 8, 16, 24, 32]


def test_a_walk_is_reported_from_the_boundary_until_it_is_left() -> None:
    """The first report is on site, each change of zones is one, the last is off site, and none follows."""
    reports = _reports("a person walks over the campus")
    assert reports[0][1:] == ("zones", ["site"])
    assert reports[-1][1:] == ("left", [])
    assert [zones for _, reason, zones in reports if reason == "zones"][:3] == [
        ["site"],
        ["library", "site"],
        ["library", "reading-room", "site"],
    ]


def test_no_position_is_sent_from_far_away() -> None:
    """A device whose hold has expired elsewhere does not report where it is."""
    assert [index for index, *_ in _reports("the hold has expired")] == [0, 3]
    assert [reason for _, reason, _ in _reports("the hold has not expired")] == ["zones", "left"]

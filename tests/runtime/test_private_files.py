"""Permissions of private files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from headcount.runtime.private_files import make_private


def mode(path: Path) -> int:
    """The permissions of a file or folder."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a folder, a file and a link to a file outside, all open to all users."""
    inside = tmp_path / "data" / "inside"
    inside.mkdir(parents=True)
    outside = tmp_path / "outside"
    for file in (inside / "file", outside):
        file.touch()
    (inside / "link").symlink_to(outside)
    for path in (inside.parent, inside, inside / "file", outside):
        path.chmod(0o777)
    return inside.parent


def test_a_folder_is_closed_with_its_content(folder: Path) -> None:
    """Only the owner has permissions afterwards; a link is not followed, and a second call finds nothing."""
    assert make_private([folder]) == 3
    assert [mode(path) for path in (folder, folder / "inside", folder / "inside" / "file")] == [0o700] * 3
    assert mode(folder.parent / "outside") == 0o777
    assert make_private([folder]) == 0


def test_only_the_folder_itself(folder: Path) -> None:
    """Without `deep`, the content stays as it is."""
    assert make_private([folder], deep=False) == 1
    assert [mode(folder), mode(folder / "inside")] == [0o700, 0o777]


def test_files_of_other_users_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's volume that belongs to root is used as it is."""
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 12_345)
    assert make_private([folder]) == 0
    assert mode(folder) == 0o777

"""The data at rest: readable by their owner only, whatever the umask and the folder before; never without its secret."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from system.running import UL, Up, headcount
from system.senders import fix, publish
from waiting import wait_until


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Programs start with a umask that hides nothing."""
    before = os.umask(0)
    yield
    os.umask(before)


def others_can_access(folder: Path) -> list[str]:
    """The files and folders, with their modes, on which others than the owner have any permission."""
    found = []
    for path in (folder, *folder.rglob("*")):
        try:
            mode = stat.S_IMODE(path.lstat().st_mode)
        except FileNotFoundError:
            continue
        if mode & 0o077 and not path.is_socket():
            found.append(f"{path.relative_to(folder)} {mode:o}")
    return found


@pytest.mark.usefixtures("open_umask")
def test_no_other_user_can_read_the_data(tmp_path: Path) -> None:
    """A data folder and its files have no permissions for others, and those of an earlier release lose them."""
    with Up(tmp_path, arguments=["--elastic"]) as up:
        publish(up.mqtt_port, "headcount/ul/person/d1/fix", fix("glucksman-library"))
        wait_until(lambda: list(up.data.glob("history/fixes/*/*.parquet")), "a segment")
        assert (up.data / "jetstream").is_dir()
        assert others_can_access(up.data) == []
        up.stop()
        for path in (up.data, *up.data.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        foreign = up.data / "notes.txt"
        foreign.write_text("not ours")
        up.start()
        assert others_can_access(up.data) == ["notes.txt 666"]
        assert "other users had access to" in up.printed()


def test_a_lost_secret_is_not_replaced(tmp_path: Path) -> None:
    """A folder with data but without its secret is refused, with what to restore."""
    data = tmp_path / "data"
    (data / "jetstream").mkdir(parents=True)
    answer = headcount("up", "--site", UL, "--data", data, cwd=tmp_path)
    assert answer.returncode == 2
    assert "secret: is missing, but jetstream depends on it. Restore it from a backup" in answer.stderr
    assert not (data / "secret").exists()

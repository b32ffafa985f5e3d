"""The file of waiting fixes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headcount.device.outbox import FixOutbox
from headcount.errors import DeviceLibraryError

CAPACITY = 5
STEPS = st.lists(
    st.tuples(st.just("add"), st.booleans())
    | st.tuples(st.just("acknowledge"), st.integers(0, 3))
    | st.tuples(st.just("restart"), st.none()),
    max_size=40,
)


@settings(max_examples=25)
@given(steps=STEPS)
def test_a_file_holds_what_memory_holds(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, bool | int | None]]
) -> None:
    """After any changes and restarts, the fixes and the state in a file are those of an outbox in memory."""
    path = tmp_path_factory.mktemp("outbox") / "fixes.db"
    stored, memory = FixOutbox(path, CAPACITY), FixOutbox(None, CAPACITY)
    for t, (step, value) in enumerate(steps):
        for outbox in (stored, memory):
            if step == "add":
                outbox.add(float(t), f"fix {t}".encode(), is_counted=bool(value), state=f"after {t}")
            elif step == "acknowledge":
                outbox.acknowledge({fix.number for fix in outbox.after(0, int(value or 0))})
        if step == "restart":
            stored.close()
            stored = FixOutbox(path, CAPACITY)
    fixes = [
        [(fix.t, fix.is_counted, fix.payload) for fix in outbox.after(0, 99)] for outbox in (stored, memory)
    ]
    assert fixes[0] == fixes[1]
    assert stored.saved("state") == memory.saved("state")
    stored.close()


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    """The file and what SQLite writes beside it are readable for their owner only."""
    outbox = FixOutbox(tmp_path / "fixes.db")
    outbox.add(1.0, b"fix", is_counted=True)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}
    outbox.close()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """While a process uses a file, another one that opens it gets an error."""
    path = tmp_path / "fixes.db"
    outbox = FixOutbox(path)
    program = "import sys, pathlib; from headcount.device.outbox import FixOutbox; FixOutbox(pathlib.Path(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
    assert "cannot be opened: database is locked. Does another process use it?" in done.stderr
    outbox.close()


def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    """A file that is not a database, or a damaged one, is renamed, and the device starts with an empty one."""
    path = tmp_path / "fixes.db"
    path.write_text("this is not a database" * 100)
    outbox = FixOutbox(path)
    outbox.add(1.0, b"fix", is_counted=True)
    assert len(outbox) == 1
    assert (tmp_path / "fixes.db.damaged").exists()
    outbox.close()


def test_a_full_disk_leaves_the_device_running(tmp_path: Path) -> None:
    """While the disk is full, new fixes are in memory; with space again, they are stored again."""
    path = tmp_path / "fixes.db"
    outbox = FixOutbox(path)
    assert outbox._database is not None
    outbox.add(1.0, b"stored", is_counted=True)
    (pages,) = outbox._database.execute("PRAGMA page_count").fetchone()
    outbox._database.execute(f"PRAGMA max_page_count = {pages}")
    outbox.add(2.0, b"x" * 100_000, is_counted=True)
    assert [fix.t for fix in outbox.after(0, 9)] == [1.0, 2.0]
    outbox._database.execute("PRAGMA max_page_count = 100000")
    outbox.add(3.0, b"stored", is_counted=True)
    outbox.close()
    again = FixOutbox(path)
    assert [fix.t for fix in again.after(0, 9)] == [1.0, 3.0]
    again.close()


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    """A file that cannot be created is an error that names it."""
    with pytest.raises(DeviceLibraryError, match=r"missing/fixes\.db: cannot be opened: No such file"):
        FixOutbox(tmp_path / "missing" / "fixes.db")

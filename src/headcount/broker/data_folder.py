"""The broker's place in the data folder: one owner at a time, and nothing left over from before.

<data>/broker.lock   held (flock) by the process that runs the broker; a kill releases it
<data>/broker.pid    the NATS server's process id, while it runs
<data>/broker.conf   its configuration, with the password: for the owner only
<data>/broker.port   its NATS port, for commands on the same data folder
<data>/broker.log    its log
<data>/jetstream/    the streams
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from headcount.errors import DataFolderError
from headcount.runtime.private_files import folder_errors, locked_folder, make_private
from headcount.runtime.proc import command_line, end_process

LOG = logging.getLogger(__name__)

#: Free bytes below which the folder counts as full.
MIN_FREE_BYTES = 64 << 20
#: Of the disk that is free, our streams take at most this share.
DISK_SHARE = 0.8

#: The files and folders of a deployment in its data folder; there may be others.
_CONTENT = ("broker*", "secret", "jetstream", "history", "units", "proxy", "tls", "ca", "*.log")


@contextmanager
def held(data: Path) -> Iterator[None]:
    """Make the folder, lock it and see that it can be written; release it at the end.

    Raises:
        DataFolderError: it can't be made or written, is full, or another process holds it.
    """
    with ExitStack() as lock:
        with folder_errors(data):
            lock.enter_context(locked_folder(data, "broker.lock"))
            _close_to_others(data)
            _check_writable(data)
        yield


def disk_budget_bytes(data: Path, most: int) -> int:
    """How much the streams may take: what they hold already and a share of what is free, or `most`."""
    used = sum(map(_size, (data / "jetstream").rglob("*.blk")))
    return min(most, used + int(DISK_SHARE * shutil.disk_usage(data).free))


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # the server removes blocks while we look
        return 0


def has_log(data: Path, account: str, stream: str) -> bool:
    """True when a stream has been made in the folder."""
    return (data / "jetstream" / account / "streams" / stream).exists()


def has_room(data: Path) -> bool:
    """True when there is so much free space that the server can work."""
    return shutil.disk_usage(data).free >= MIN_FREE_BYTES


def end_previous_server(data: Path, timeout_s: float = 5.0) -> int | None:
    """End the NATS server that a killed headcount left behind in this folder; its pid, if there was one.

    Call it with the folder held; it waits for the server's end, at most `timeout_s`, then kills it.
    A pid that has been given to another program since is left alone.
    """
    pid_file = data / "broker.pid"
    try:
        pid = int(pid_file.read_text())
    except (OSError, ValueError):
        return None
    ours = os.fspath((data / "broker.conf").absolute()) in command_line(pid)
    if ours:
        end_process(pid, timeout_s)
    pid_file.unlink(missing_ok=True)
    return pid if ours else None


def _close_to_others(data: Path) -> None:
    make_private([data], deep=False)
    corrected = make_private(path for name in _CONTENT for path in data.glob(name))
    if corrected:
        LOG.warning("%s: other users had access to %d files and folders; it is withdrawn", data, corrected)


def _check_writable(data: Path) -> None:
    probe = data / "broker.probe"
    try:
        probe.write_bytes(b"\0" * 4096)
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    free = shutil.disk_usage(data).free
    if free < MIN_FREE_BYTES:
        raise DataFolderError(
            str(data),
            f"it is full: {free / 1e6:.0f} MB are free, {MIN_FREE_BYTES / 1e6:.0f} MB are needed",
            "Free some space there, or choose another folder with --data.",
        )

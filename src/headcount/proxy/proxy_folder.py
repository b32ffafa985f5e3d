"""The balancer's folder: one owner at a time.

<folder>/proxy.lock      held (flock) by the process that runs HAProxy; a kill releases it
<folder>/haproxy.cfg     its configuration
<folder>/runtime.sock    its runtime API, for the owner only: whoever reaches it rules HAProxy
<folder>/servers.state   who is up and down, during a reload
<folder>/banned.acl      addresses that are refused, for HAProxy; in bans.json with their ends
<folder>/units.json      the units known last, for a start while the core is away
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headcount.errors import DataFolderError


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make the folder for its owner only and lock it; release it at the end.

    Raises:
        DataFolderError: it can't be made or written, or another process holds it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / "proxy.lock").open("a")
    except OSError as error:
        raise _refused(folder, f"it can't be written ({error})") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise _refused(folder, "another headcount uses it") from error
        yield


def replace(path: Path, content: bytes) -> None:
    """Replace a file at once: never half of it is there.

    Raises:
        DataFolderError: it can't be written.
    """
    new = path.with_name(path.name + ".new")
    try:
        new.write_bytes(content)
        new.replace(path)
    except OSError as error:
        raise _refused(path.parent, f"{path.name} can't be written ({error})") from error


def _refused(folder: Path, problem: str) -> DataFolderError:
    return DataFolderError(
        str(folder), problem, "End the other one, mend its rights, or choose another with --data."
    )

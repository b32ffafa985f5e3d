"""The balancer's folder, used by one process at a time.

<folder>/proxy.lock      locked (flock) by the process that runs HAProxy; a kill releases it
<folder>/haproxy.cfg     the configuration
<folder>/runtime.sock    the runtime API, for the owner only: it controls HAProxy
<folder>/servers.state   state of the servers, during a reload
<folder>/banned.acl      banned addresses, for HAProxy; with their ends in bans.json
<folder>/units.json      the last known units, for a start without the core
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from headcount.errors import DataFolderError
from headcount.runtime.private_files import locked_folder, write_private


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create the folder for its owner only, and lock it.

    Raises:
        DataFolderError: it cannot be created or written, or another process uses it.
    """
    with ExitStack() as lock:
        try:
            lock.enter_context(locked_folder(folder, "proxy.lock"))
        except BlockingIOError as error:
            raise _refused(folder, "another headcount uses it") from error
        except OSError as error:
            raise _refused(folder, f"it cannot be written ({error})") from error
        yield


def write_file(path: Path, content: bytes) -> None:
    """Replace a file atomically.

    Raises:
        DataFolderError: it cannot be written.
    """
    try:
        write_private(path, content)
    except OSError as error:
        raise _refused(path.parent, f"{path.name} cannot be written ({error})") from error


def _refused(folder: Path, problem: str) -> DataFolderError:
    return DataFolderError(
        str(folder), problem, "Stop the other one, fix the permissions, or choose another folder with --data."
    )

"""The balancer's folder: one owner at a time.

<folder>/proxy.lock      held (flock) by the process that runs HAProxy; a kill releases it
<folder>/haproxy.cfg     its configuration
<folder>/runtime.sock    its runtime API, for the owner only: whoever reaches it rules HAProxy
<folder>/servers.state   who is up and down, during a reload
<folder>/banned.acl      addresses that are refused, for HAProxy; in bans.json with their ends
<folder>/units.json      the units known last, for a start while the core is away
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from headcount.errors import DataFolderError
from headcount.runtime.private_files import locked_folder, write_private


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make the folder for its owner only and lock it; release it at the end.

    Raises:
        DataFolderError: it can't be made or written, or another process holds it.
    """
    with ExitStack() as lock:
        try:
            lock.enter_context(locked_folder(folder, "proxy.lock"))
        except BlockingIOError as error:
            raise _refused(folder, "another headcount uses it") from error
        except OSError as error:
            raise _refused(folder, f"it cannot be written ({error})") from error
        yield


def replace(path: Path, content: bytes) -> None:
    """Replace a file at once: never half of it is there.

    Raises:
        DataFolderError: it can't be written.
    """
    try:
        write_private(path, content)
    except OSError as error:
        raise _refused(path.parent, f"{path.name} cannot be written ({error})") from error


def _refused(folder: Path, problem: str) -> DataFolderError:
    return DataFolderError(
        str(folder), problem, "End the other one, fix its permissions, or choose another with --data."
    )

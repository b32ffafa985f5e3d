"""Files and folders for their owner only: atomic writes, and folders with one process at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_private(path: Path, content: bytes) -> None:
    """Replace a file atomically; only its owner may read it.

    Raises:
        OSError: it cannot be written.
    """
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


@contextmanager
def locked_folder(folder: Path, lock: str, *, mode: int = 0o700, wait: bool = False) -> Iterator[None]:
    """Create a folder and hold its lock file; a killed process releases it.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is not set.
        OSError: the folder cannot be created or written.
    """
    folder.mkdir(mode=mode, parents=True, exist_ok=True)
    with (folder / lock).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield

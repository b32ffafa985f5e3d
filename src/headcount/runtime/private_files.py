"""Files and folders for their owner only: atomic writes, and folders with one process at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

from headcount.errors import DataFolderError

#: The umask of a deployment's processes.
PRIVATE_UMASK = stat.S_IRWXG | stat.S_IRWXO
_OTHER = "Choose another folder with --data."
_FULL = ("it is full", "Free some space there, or choose another folder with --data.")
_CLOSED = ("it can't be written", "Allow this user to write there, or choose another with --data.")
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: ("it is read-only", _OTHER),
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
    errno.ENOTDIR: ("a part of its path is a file", _OTHER),
    errno.EEXIST: ("it is a file", _OTHER),
}


def write_private(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file atomically; only its owner may read it, or those that `mode` permits.

    Raises:
        OSError: it cannot be written.
    """
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def make_private(paths: Iterable[Path], *, deep: bool = True) -> int:
    """Withdraw all permissions on files and folders, if `deep` with their content, except the owner's.

    Files that another process removes meanwhile are ignored; symbolic links are not followed. Files of
    other users stay as they are: a container's volume may belong to root, and be open to our group.

    Returns:
        The number of files and folders that others could access.

    Raises:
        OSError: a file system refuses.
    """
    return sum(map(_withdraw, chain.from_iterable(map(_with_content, paths) if deep else [paths])))


def _with_content(path: Path) -> Iterator[Path]:
    yield path
    for at, folders, files in os.walk(path):
        yield from (Path(at, name) for name in (*folders, *files))


def _withdraw(path: Path) -> bool:
    with suppress(FileNotFoundError):
        status = path.lstat()
        ours = os.geteuid() in (0, status.st_uid)
        if ours and status.st_mode & PRIVATE_UMASK and not stat.S_ISLNK(status.st_mode):
            path.chmod(stat.S_IMODE(status.st_mode) & ~PRIVATE_UMASK)
            return True
    return False


def is_locked(path: Path) -> bool:
    """Whether a process holds a lock file."""
    with suppress(FileNotFoundError), path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def folder_errors(folder: Path, in_use: str = "another headcount uses it") -> Iterator[None]:
    """Turn errors of the disk into errors with a remedy; `in_use` is that of a locked folder.

    Raises:
        DataFolderError: the folder is locked, full, or cannot be written.
    """
    try:
        yield
    except BlockingIOError as error:
        remedy = "End that one, or choose another folder with --data."
        raise DataFolderError(str(folder), in_use, remedy) from error
    except OSError as error:
        problem, remedy = _REMEDIES.get(error.errno or 0, ("it can't be used", _OTHER))
        place = f" ({error.filename})" if error.filename else ""
        raise DataFolderError(str(folder), f"{problem}: {error.strerror or error}{place}", remedy) from error


@contextmanager
def locked_folder(folder: Path, lock: str, *, wait: bool = False) -> Iterator[None]:
    """Create a folder for its owner only and hold its lock file; a killed process releases it.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is not set.
        OSError: the folder cannot be created or written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(folder / lock, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield

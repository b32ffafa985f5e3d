"""Where the history is stored: named objects in a folder or on S3.

Objects are immutable: `put` refuses a name that exists. The one exception is the manifest, which `replace`
exchanges only if no other process did meanwhile (compare-and-set), so writers need no lock service.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from headcount.errors import ObjectExistsError, ObjectNotFoundError, ReplacedError
from headcount.runtime.private_files import folder_errors, make_private, write_private

#: Locks, which `list_` leaves out.
_HIDDEN = ".lock"

_REPORT = "Report this: names are meant to be unique"
_RESTORE = "Restore it from a backup, or run `headcount doctor`"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as `list_` finds it."""

    name: str
    size: int  # bytes
    modified_s: float  # Unix seconds


class ObjectStore(Protocol):
    """Objects by name, such as `fixes/hour=2026-11-24T13/0192….parquet`. All methods block.

    Raises (all methods):
        DataFolderError, StoreError: the store cannot be read or written: where, problem, remedy.
        ObjectNotFoundError: there is no such object.
    """

    @property
    def url(self) -> str:
        """The place for people: a folder, or `s3://bucket/prefix`."""

    def put(self, name: str, data: bytes) -> None:
        """Write a new object; it is durable when this returns.

        Raises:
            ObjectExistsError: the name is taken.
        """

    def get(self, name: str) -> bytes:
        """Return an object's content."""

    def open(self, name: str) -> BinaryIO:
        """Open an object for reading in any order."""

    def list_(self, prefix: str = "") -> Iterator[StoredObject]:
        """All objects whose names begin with `prefix`, in no order."""

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those that do not exist are ignored."""

    def versioned(self, name: str) -> tuple[bytes, str] | None:
        """Return the content and version of a replaceable object, or None."""

    def replace(self, name: str, data: bytes, version: str | None) -> None:
        """Replace an object if its version is still this one; None: if it does not exist.

        Raises:
            ReplacedError: it has another version; nothing was changed.
        """

    def check(self) -> None:
        """Check that the store can be used by several writers."""


class FolderStore:
    """Objects as files of a local folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def url(self) -> str:
        """The folder."""
        return str(self._root)

    def put(self, name: str, data: bytes) -> None:
        """Write a file under a new name, complete or not at all."""
        path = self._path(name)
        with folder_errors(self._root):
            self._make_folder(path.parent)
            new = path.with_name(f"{path.name}.{os.getpid()}.new")
            write_private(new, data)
            try:
                os.link(new, path)  # fails if it exists, where a rename would overwrite it
            except FileExistsError as error:
                raise ObjectExistsError(self.url, f"{name} exists already", _REPORT) from error
            finally:
                new.unlink()
            _sync(path.parent)

    def get(self, name: str) -> bytes:
        """Return a file's content."""
        with self.open(name) as file:
            return file.read()

    def open(self, name: str) -> BinaryIO:
        """Open a file."""
        with folder_errors(self._root):
            try:
                return self._path(name).open("rb")
            except FileNotFoundError as error:
                raise ObjectNotFoundError(self.url, f"{name} is missing", _RESTORE) from error

    def list_(self, prefix: str = "") -> Iterator[StoredObject]:
        """All files, those that are being written (`….new`) among them."""
        with folder_errors(self._root):
            for folder, _, names in os.walk(self._root):
                for each in names:
                    path = Path(folder, each)
                    name = path.relative_to(self._root).as_posix()
                    if not name.startswith(prefix) or name.endswith(_HIDDEN):
                        continue
                    try:
                        found = path.stat()
                    except FileNotFoundError:
                        continue
                    yield StoredObject(name, found.st_size, found.st_mtime)

    def delete(self, names: Iterable[str]) -> None:
        """Delete files."""
        with folder_errors(self._root):
            for path in map(self._path, names):
                path.unlink(missing_ok=True)

    def versioned(self, name: str) -> tuple[bytes, str] | None:
        """Return a file's content; its version is a digest of it."""
        with folder_errors(self._root):
            try:
                data = self._path(name).read_bytes()
            except FileNotFoundError:
                return None
        return data, _version(data)

    def replace(self, name: str, data: bytes, version: str | None) -> None:
        """Replace a file while no other process of this machine does."""
        path = self._path(name)
        with folder_errors(self._root), self._locked(path):
            found = self.versioned(name)
            if (None if found is None else found[1]) != version:
                raise ReplacedError(self.url, f"{name} was replaced by another process", "Read it again")
            write_private(path, data)
            _sync(path.parent)

    def check(self) -> None:
        """Create the folder."""
        with folder_errors(self._root):
            self._make_folder(self._root)

    def _path(self, name: str) -> Path:
        return self._root / name

    def _make_folder(self, folder: Path) -> None:
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_private(missing, deep=False)
        for each in missing:
            _sync(each.parent)

    @contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        """One replacement at a time on this machine; the lock ends with the process."""
        self._make_folder(path.parent)
        with path.with_name(f".{path.name}.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _version(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _sync(folder: Path) -> None:
    """Synchronise the names in a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

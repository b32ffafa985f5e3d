"""Objects in a bucket of S3 or of a server with its API."""

from __future__ import annotations

import io
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, BinaryIO, cast

import obstore
from obstore import exceptions
from obstore.store import S3Store

from headcount.errors import ObjectExistsError, ObjectNotFoundError, ReplacedError, StoreError
from headcount.history.objects import StoredObject

#: A request is repeated for this long, if the server does not answer or is overloaded.
RETRY_S = 20.0
MAX_RETRIES = 5
CONNECT_S, REQUEST_S = 5.0, 60.0
#: Objects that one request deletes.
_DELETE = 1000
_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
#: The remedy of an error follows from the first text that it contains.
_REMEDIES = (
    ("NoSuchBucket", "Create the bucket, or change `history`"),
    ("InvalidAccessKeyId", "Check AWS_ACCESS_KEY_ID"),
    ("SignatureDoesNotMatch", "Check AWS_SECRET_ACCESS_KEY"),
    ("AccessDenied", "Permit reading, writing, listing and deleting in this bucket"),
    ("169.254.169.254", "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    ("", "Check the network, AWS_ENDPOINT_URL and AWS_REGION"),
)
_ANSWER = re.compile(r"<Code>(.*?)</Code>.*?<Message>(.*?)\.?</Message>")
_REPORT = "Report this: names are meant to be unique"
_RESTORE = "Restore it from a backup, or run `headcount doctor`"


class BucketStore:
    """Objects below a prefix of a bucket. Credentials and endpoint come from the usual AWS_* variables."""

    def __init__(self, bucket: str, prefix: str, environment: Mapping[str, str]) -> None:
        """Use a bucket; nothing is requested yet.

        Args:
            bucket: its name.
            prefix: of all names, without a slash at the ends; "" for none.
            environment: the variables of this process.
        """
        self._url = "/".join(filter(None, [f"s3://{bucket}", prefix]))
        self._prefix = f"{prefix}/" if prefix else ""
        self._hidden = [value for name in _SECRETS if (value := environment.get(name))]
        endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or ""
        with self._errors():
            self._store = S3Store(
                bucket,
                client_options={
                    "allow_http": endpoint.startswith("http://"),
                    "connect_timeout": timedelta(seconds=CONNECT_S),
                    "timeout": timedelta(seconds=REQUEST_S),
                },
                retry_config={"max_retries": MAX_RETRIES, "retry_timeout": timedelta(seconds=RETRY_S)},
            )

    @property
    def url(self) -> str:
        """`s3://bucket/prefix`."""
        return self._url

    def put(self, name: str, data: bytes) -> None:
        """Write an object under a new name."""
        with self._errors(name):
            try:
                obstore.put(self._store, self._prefix + name, data, mode="create", use_multipart=False)
            except exceptions.AlreadyExistsError as error:
                # a request that is repeated, because its answer was lost, finds what it wrote
                if self.get(name) != data:
                    raise ObjectExistsError(self.url, f"{name} exists already", _REPORT) from error

    def get(self, name: str) -> bytes:
        """Return an object's content."""
        with self._errors(name):
            return bytes(obstore.get(self._store, self._prefix + name).bytes())

    def open(self, name: str) -> BinaryIO:
        """Open an object; each read is a request for these bytes."""
        with self._errors(name):
            size = obstore.head(self._store, self._prefix + name)["size"]
        return cast(BinaryIO, _Ranges(self, name, size))

    def range(self, name: str, start: int, length: int) -> bytes:
        """Return a part of an object's content."""
        with self._errors(name):
            return bytes(obstore.get_range(self._store, self._prefix + name, start=start, length=length))

    def list_(self, prefix: str = "") -> Iterator[StoredObject]:
        """All objects whose names begin with `prefix`."""
        # S3 itself compares texts, this library whole parts between slashes
        folder = (self._prefix + prefix).rpartition("/")[0]
        with self._errors():
            for page in obstore.list(self._store, folder or None):
                for each in page:
                    name = each["path"].removeprefix(self._prefix)
                    if name.startswith(prefix):
                        yield StoredObject(name, each["size"], each["last_modified"].timestamp())

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects."""
        paths = [self._prefix + name for name in names]
        with self._errors():
            for start in range(0, len(paths), _DELETE):
                obstore.delete(self._store, paths[start : start + _DELETE])

    def versioned(self, name: str) -> tuple[bytes, str] | None:
        """Return an object's content and entity tag."""
        try:
            with self._errors(name):
                found = obstore.get(self._store, self._prefix + name)
                return bytes(found.bytes()), found.meta["e_tag"] or ""
        except ObjectNotFoundError:
            return None

    def replace(self, name: str, data: bytes, version: str | None) -> None:
        """Replace an object with If-Match, or create it with If-None-Match."""
        mode: Any = "create" if version is None else {"e_tag": version}
        with self._errors(name):
            try:
                obstore.put(self._store, self._prefix + name, data, mode=mode, use_multipart=False)
            except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
                raise ReplacedError(
                    self.url, f"{name} was replaced by another process", "Read it again"
                ) from error

    def check(self) -> None:
        """Check that the bucket can be written, and that the server supports conditional writes.

        Raises:
            StoreError: it cannot be used.
        """
        name = f"check-{uuid.uuid4().hex}"
        self.replace(name, b"1", None)
        try:
            for version in (None, '"another"'):
                try:
                    self.replace(name, b"2", version)
                except ReplacedError:
                    continue
                problem = "this server does not support conditional writes (If-Match, If-None-Match)"
                raise StoreError(self.url, problem, "Use one that does, or a folder")
        finally:
            self.delete([name])

    @contextmanager
    def _errors(self, name: str = "") -> Iterator[None]:
        try:
            yield
        except (exceptions.NotFoundError, FileNotFoundError) as error:
            if "NoSuchBucket" in str(error) or not name:
                raise self._error(error) from None
            raise ObjectNotFoundError(self.url, f"{name} is missing", _RESTORE) from None
        except exceptions.BaseError as error:
            raise self._error(error) from None

    def _error(self, error: Exception) -> StoreError:
        """The error with a remedy; without credentials, which some servers repeat in their answers."""
        text = " ".join(str(error).partition("Debug source:")[0].split())
        for value in self._hidden:
            text = text.replace(value, "…")
        remedy = next(remedy for part, remedy in _REMEDIES if part in text)
        answer = _ANSWER.search(text)
        return StoreError(self.url, f"{answer[1]}: {answer[2]}" if answer else text, remedy)


class _Ranges(io.RawIOBase):
    """An object as a file."""

    def __init__(self, store: BucketStore, name: str, size: int) -> None:
        self._store = store
        self._name = name
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._size - self._at)
        if length <= 0:
            return 0
        buffer[:length] = self._store.range(self._name, self._at, length)
        self._at += length
        return length

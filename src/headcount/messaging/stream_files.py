"""The files of streams, read without the server: whether they are damaged, and how old their first message is.

    <data>/jetstream/<account>/streams/<stream>/msgs/<number>.blk   messages, one record after the other
    …/msgs/index.db                                                 the state of the stream at its last save

Source of the formats: nats-server 2.15.1, `filestore.go`. A record is its length (4 bytes), sequence (8), time in
ns (8), length of the subject (2), subject, payload and hash (8), little-endian. The server starts with whatever it
can read, and drops the rest without a word: hence these checks before it starts.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headcount.messages.topics import AUDIT_STREAM
from headcount.messaging.streams import (
    ACCESS_BUCKET,
    COMMAND_BUCKET,
    DAYKEY_BUCKET,
    DEVICE_BUCKET,
)

_HEADER = struct.Struct("<IQQH")
_HASH_BYTES = 8
_ERASED, _TOMBSTONE = 1 << 63, 1 << 62
_HAS_HEADERS = 1 << 31
_FIRST_BYTES = 1 << 20
#: Bytes at the beginning of each file of a large stream that are read before a start.
_HEAD_BYTES = 1 << 16
#: The index may be saved before the last messages are on the disk: this many may be missing after a power cut.
_LATE = 16
#: In the subject of a fix: fix.<p>.<site>.<kind>.<device>.
_FIX_DOTS = 4
#: A record whose sequence is further ahead, or that is longer, is not one that a crash interrupted.
_MAX_AHEAD, _MAX_RECORD_BYTES = 1 << 20, 16 << 20
#: Streams of which nothing may be missing, and their meaning; they are read as a whole before a start. Of the others,
#: which may have gigabytes or are replaced every few seconds, the beginning of each file is read.
CONTENT = {
    f"KV_{DEVICE_BUCKET}": "the registry of devices",
    f"KV_{ACCESS_BUCKET}": "tokens and sessions",
    f"KV_{COMMAND_BUCKET}": "commands",
    f"KV_{DAYKEY_BUCKET}": "the keys of pseudonyms",
    AUDIT_STREAM: "the audit log",
}


def damaged_streams(data: Path, *, whole: bool = False) -> Iterator[tuple[Path, str]]:
    """The folders of damaged streams in a data folder whose server does not run, with the problem of each.

    Args:
        data: the data folder.
        whole: read all files to their end, which takes a while for a large log.

    Raises:
        OSError: a file cannot be read.
    """
    for folder in sorted(data.glob("jetstream/*/streams/*")):
        strict = folder.name in CONTENT
        problem = _stream_problem(folder / "msgs", None if whole or strict else _HEAD_BYTES, strict=strict)
        if problem:
            yield folder, problem


def _stream_problem(folder: Path, limit: int | None, *, strict: bool) -> str:
    """The first problem of a stream's files; "" if there is none.

    A power cut may leave an interrupted write at the end of a file; the server drops that. If `strict`, it may
    only be in the last file, and nothing that the index has seen may be missing.
    """
    blocks = [path for path in folder.glob("*.blk") if path.stem.isdecimal()]
    blocks.sort(key=lambda path: int(path.stem))
    for path in blocks:
        good, size, last_seq, interrupted = _walk(path, limit)
        if good == size or (interrupted and not strict):
            continue
        where = f"{path} holds no message at byte {good} of {size}"
        if not interrupted or path is not blocks[-1]:
            return where
        lost = _index_last_seq(folder / "index.db") - last_seq
        if lost > _LATE:
            return f"{where}, and {lost} messages are missing"
    return ""


def _walk(path: Path, limit: int | None) -> tuple[int, int, int, bool]:
    """Walk the records of a file.

    Returns:
        The number of bytes with valid records, the number of bytes walked, the highest sequence, and whether the
        rest looks like a write that a crash interrupted: less than a record, or zeros.
    """
    size = path.stat().st_size
    at = last_seq = 0
    if size == 0:
        return 0, 0, 0, False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        end = size if limit is None else min(size, limit)
        while at < end:
            if size - at < _HEADER.size:
                return at, size, last_seq, True
            length, flagged, _, subject = _HEADER.unpack_from(data, at)
            length &= ~_HAS_HEADERS
            sequence = flagged & ~(_ERASED | _TOMBSTONE)
            if length < _HEADER.size + _HASH_BYTES + subject:
                return at, size, last_seq, not any(data[at:])
            if at + length > size:
                is_near = not last_seq or sequence <= last_seq + _MAX_AHEAD
                return at, size, last_seq, is_near and length <= _MAX_RECORD_BYTES
            if not flagged & _TOMBSTONE:
                last_seq = max(last_seq, sequence)
            at += length
    return at, at, last_seq, False


def _index_last_seq(path: Path) -> int:
    """The last sequence in a stream's saved state; 0 if there is none."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return 0
    at, numbers = (
        2,
        list[int](),
    )  # behind magic number and version: messages, bytes, first sequence, its time, last
    while len(numbers) < 5 and at < len(content):
        number = shift = 0
        while at < len(content):
            byte = content[at]
            at += 1
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        numbers.append(number)
    return numbers[4] if len(numbers) == 5 else 0


def first_record_s(path: Path) -> float | None:
    """The time of the first message in a file of a stream that is not overwritten; None: there is none."""
    try:
        with path.open("rb") as file:
            data = file.read(_FIRST_BYTES)
    except FileNotFoundError:  # just removed
        return None
    at = 0
    while at + _HEADER.size <= len(data):
        length, sequence, time_ns, subject = _HEADER.unpack_from(data, at)
        if not sequence & (_ERASED | _TOMBSTONE) and subject and time_ns:
            return float(time_ns) / 1e9
        length &= ~_HAS_HEADERS
        if length < _HEADER.size:
            return None
        at += length
    return None


@dataclass(slots=True)
class LogRecords:
    """Messages in files of the log that are not overwritten."""

    fixes: int = 0
    bytes: int = 0  # of fixes, their acknowledged copies, and changes of status
    tick_bytes: int = 0
    hours: float = 0.0  # of the longest file

    def add(self, path: Path) -> None:
        """Add those of a file.

        Raises:
            OSError: the file cannot be read.
        """
        data = path.read_bytes()
        at, times_ns = 0, list[int]()
        while at + _HEADER.size <= len(data):
            length, sequence, time_ns, subject_bytes = _HEADER.unpack_from(data, at)
            length &= ~_HAS_HEADERS
            if length < _HEADER.size or at + length > len(data):
                break
            if not sequence & (_ERASED | _TOMBSTONE) and subject_bytes and time_ns:
                times_ns.append(time_ns)
                start = at + _HEADER.size
                subject = data[start : start + subject_bytes]
                if subject.endswith(b".tick"):
                    self.tick_bytes += length
                else:
                    self.bytes += length
                    self.fixes += subject.startswith(b"fix.") and subject.count(b".") == _FIX_DOTS
            at += length
        if times_ns:
            self.hours = max(self.hours, (max(times_ns) - min(times_ns)) / 3.6e12)

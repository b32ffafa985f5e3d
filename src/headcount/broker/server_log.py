"""The log of a NATS server without the names of devices.

The server logs client ids and users, and the user names of refused clients. So it does not write the file
itself: its output comes through here, where quoted text and everything that looks like a handle is replaced.
Its messages about itself while it starts (paths, names of streams) stay as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import logging.handlers
import re
import sys
from collections.abc import Callable
from pathlib import Path

from headcount.broker.nats_config import Limits

LOG = logging.getLogger(__name__)

#: Lines of other kinds, about connections and warnings, may quote what a device has sent.
_OF_ITSELF = re.compile(rb"^(\[\d+\] \S+ \S+ \[(INF|FTL)\] |nats-server: )")
#: `127.0.0.1:50000 - mid:7 - …`; other letters before `id:` are other kinds of clients.
_CONNECTION = re.compile(rb" - [a-z_]*id:\d+")
_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"?')
_HANDLE = re.compile(rb"(?<![A-Za-z0-9])[a-z2-7]{20}(?![A-Za-z0-9])")
_HIDDEN = b'"\xe2\x80\xa6"'
#: Of one line; what is longer is cut.
MAX_LINE_BYTES = 4096


def without_names(line: bytes) -> bytes:
    """A line of the server's log without client ids, users and handles."""
    line = line[:MAX_LINE_BYTES]
    if _CONNECTION.search(line) or not _OF_ITSELF.match(line):
        line = _QUOTED.sub(_HIDDEN, line)
    return _HANDLE.sub("…".encode(), line)


class _LogFile(logging.handlers.RotatingFileHandler):
    """A file whose failures are one line in our own log, until it can be written again."""

    _failed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        failed_before, self._failed = self._failed, False
        super().emit(record)
        if self._failed and not failed_before:
            LOG.error(
                "%s cannot be written (%s): the lines of the server are lost",
                self.baseFilename,
                self._problem,
            )

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802  # as logging declares it
        """Remember the error that is being handled."""
        self._failed, self._problem = True, sys.exc_info()[1]

    def close(self) -> None:
        """Close the file, full disk or not."""
        with contextlib.suppress(OSError):
            super().close()


async def keep_log(
    source: asyncio.StreamReader, path: Path, limits: Limits, on_line: Callable[[bytes], object] = bool
) -> None:
    """Append the server's output to a file until it ends.

    Args:
        source: the output.
        path: the file.
        limits: has the size at which the file is rotated.
        on_line: called with each line as the server wrote it.
    """
    file = _LogFile(path, maxBytes=limits.max_log_bytes, backupCount=limits.max_logs)
    file.setFormatter(logging.Formatter("%(message)s"))
    try:
        while True:
            try:
                line = await source.readline()
            except ValueError:  # longer than the reader's buffer: what has come of it is gone
                continue
            if not line:
                return
            on_line(line)
            text = without_names(line.rstrip(b"\r\n")).decode(errors="replace")
            file.emit(logging.LogRecord("", 0, "", 0, text, None, None))
    finally:
        file.close()

"""What a NATS server says, into a file, without what it says about devices.

The server names client ids and users in its log, and what others typed as user. So it doesn't write the file
itself: its lines come through here, and what stands in quotation marks and whatever looks like a handle is replaced.
What it says of itself while it starts (paths, names of streams) stays as it is.
"""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import re
from pathlib import Path

from headcount.broker.nats_config import Limits

#: Lines of no known kind, and such that speak of a connection or complain, may quote what a device has said.
_OF_ITSELF = re.compile(rb"^(\[\d+\] \S+ \S+ \[(INF|FTL)\] |nats-server: )")
#: `127.0.0.1:50000 - mid:7 - …`; other letters before `id:` are other kinds of clients.
_CONNECTION = re.compile(rb" - [a-z_]*id:\d+")
_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"?')
_HANDLE = re.compile(rb"(?<![A-Za-z0-9])[a-z2-7]{20}(?![A-Za-z0-9])")
_HIDDEN = b'"\xe2\x80\xa6"'
#: Of one line; what is longer is cut.
MOST_LINE = 4096


def without_names(line: bytes) -> bytes:
    """A line of the server's log without client ids, users and handles."""
    line = line[:MOST_LINE]
    if _CONNECTION.search(line) or not _OF_ITSELF.match(line):
        line = _QUOTED.sub(_HIDDEN, line)
    return _HANDLE.sub("…".encode(), line)


async def keep_log(source: asyncio.StreamReader, path: Path, limits: Limits) -> None:
    """Append the server's output to a file until it ends; `limits` says when the file is rotated."""
    file = logging.handlers.RotatingFileHandler(
        path, maxBytes=limits.max_log_bytes, backupCount=limits.max_logs
    )
    file.setFormatter(logging.Formatter("%(message)s"))
    try:
        while True:
            try:
                line = await source.readline()
            except ValueError:  # longer than the reader's buffer: what has come of it is gone
                continue
            if not line:
                return
            text = without_names(line.rstrip(b"\r\n")).decode(errors="replace")
            file.emit(logging.LogRecord("", 0, "", 0, text, None, None))
    finally:
        file.close()

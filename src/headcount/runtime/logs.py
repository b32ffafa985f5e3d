"""The operator's log: one line an event on standard error."""

from __future__ import annotations

import logging
import time

#: Clients can make these log as often as they like: invalid requests, aborted TLS handshakes.
_LIBRARIES = ("asyncio", "uvicorn.error")
#: These log the URLs of requests, which can contain keys, and the headers of answers.
_HTTP_CLIENTS = ("httpx2", "httpcore2")
_INTERVAL_S = 60.0
_MAX_MESSAGES = 1000


class RepeatFilter(logging.Filter):
    """Passes each message once a minute, with the number of those left out since."""

    def __init__(self, *, warnings: bool = False) -> None:
        """Compare messages without their arguments; with `warnings`, compare whole warnings and pass all else."""
        super().__init__()
        self._warnings = warnings
        self._seen: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is logged; a message is known by its first line."""
        if self._warnings and record.levelno < logging.WARNING:
            return True
        text = record.getMessage() if self._warnings else str(record.msg)
        message, now_s = text.partition("\n")[0], time.monotonic()
        logged_s, left_out = self._seen.get(message, (-_INTERVAL_S, 0))
        if now_s < logged_s + _INTERVAL_S:
            self._seen[message] = (logged_s, left_out + 1)
            return False
        if len(self._seen) >= _MAX_MESSAGES:
            self._seen.clear()
        self._seen[message] = (now_s, 0)
        if left_out:
            record.msg = f"{record.msg} ({left_out} more like this)"
        return True


def configure_logging(role: str, level: str = "INFO") -> None:
    """Log from here on as `role`, in UTC; `level` is a name of `logging`."""
    formatter = logging.Formatter(f"%(asctime)sZ {role} %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    handler.addFilter(RepeatFilter(warnings=True))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _LIBRARIES:
        logging.getLogger(name).addFilter(RepeatFilter())
    for name in _HTTP_CLIENTS:
        logging.getLogger(name).setLevel(logging.WARNING)

"""The operator's log: one line an event on standard error."""

from __future__ import annotations

import logging
import time


def configure_logging(role: str, level: str = "INFO") -> None:
    """Log from here on as `role`, in UTC; `level` is a name of `logging`."""
    formatter = logging.Formatter(f"%(asctime)sZ {role} %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)

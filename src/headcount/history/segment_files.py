"""The files of segments: which of the folder's files they are, whether they can be read, and setting aside those that cannot."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from headcount.history.hours import hour_start

_log = logging.getLogger(__name__)

#: The folder for segments that cannot be read; retention drops them with the rows of their hour.
DAMAGED = "damaged"
_SEGMENT = re.compile(r"\d{12}\.parquet")


def segments_of(hour: Path) -> list[Path]:
    """The segments in the folder of an hour, oldest first; files with other names are not ours."""
    try:
        return sorted(path for path in hour.iterdir() if _SEGMENT.fullmatch(path.name))
    except FileNotFoundError:  # retention has just dropped the hour
        return []


def all_segments(root: Path, kind: str) -> list[Path]:
    """The segments of one kind (`fixes`, `counts`) below the history's folder, oldest first."""
    return [path for hour in sorted(root.glob(f"{kind}/hour=*")) for path in segments_of(hour)]


def foreign_files(root: Path) -> Iterator[Path]:
    """Files among the segments that are neither segments nor temporary, as a copy or a restored backup leaves them."""
    for kind in ("fixes", "counts"):
        for path in root.glob(f"{kind}/**/*"):
            is_hour = path.parent.name == kind and hour_start(path.name) is not None
            is_segment = (
                _SEGMENT.fullmatch(path.name) is not None and hour_start(path.parent.name) is not None
            )
            if not is_hour and not is_segment and path.suffix != ".tmp":
                yield path


def is_readable(path: Path) -> bool:
    """Whether a segment can be read as a whole; a file that is gone by now counts as readable."""
    import pyarrow as pa  # noqa: PLC0415  # only a suspicion is worth its memory
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        pq.ParquetFile(path).read()
    except FileNotFoundError:
        return True
    except (pa.ArrowException, OSError):
        return False
    return True


def set_aside(root: Path, path: Path) -> Path:
    """Move a damaged segment out of the way of queries and erasures; return its new path.

    Raises:
        OSError: it cannot be moved.
    """
    target = root / DAMAGED / path.parent.parent.name / path.parent.name / path.name
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.rename(target)
    _log.error("%s cannot be read and was set aside as %s: its rows are missing in answers", path, target)
    return target

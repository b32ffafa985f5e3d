"""The files of segments: which of the folder's files they are, whether they can be read, and setting aside those that cannot."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from headcount.history.catalog import Catalog
from headcount.history.hours import hour_start
from headcount.history.objects import FolderStore
from headcount.runtime.private_files import folder_errors

_log = logging.getLogger(__name__)

#: The folder for segments that cannot be read; retention drops them with the rows of their hour.
DAMAGED = "damaged"
#: Segments that are left out, and when they were changed; `history` sets them aside at its next start.
_left_out: dict[str, int] = {}
_SEGMENT = re.compile(r"[0-9a-f]{32}\.parquet")


def all_segments(root: Path, kind: str) -> list[Path]:
    """The segments of one kind (`fixes`, `counts`) below the history's folder, oldest first."""
    return [root / segment.name for segment in Catalog(FolderStore(root)).manifest().of(kind)]


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


def is_readable(path: Path, *, whole: bool = True) -> bool:
    """Whether a segment, or its footer, can be read and has sites; a file that is gone counts as readable.

    Raises:
        OSError, MemoryError: the disk, the permissions or the process are at fault, not the content.
    """
    import pyarrow as pa  # noqa: PLC0415  # only a suspicion is worth its memory
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with pq.ParquetFile(path) as file:
            if "site" not in file.schema_arrow.names:
                _log.error("%s was written by an older release: its rows have no site", path)
                return False
            if whole:
                file.read()
    except FileNotFoundError:
        return True
    except pa.ArrowMemoryError:
        raise
    except pa.ArrowException:
        return False
    except OSError as error:
        if error.errno:  # errors of the content have none
            raise
        return False
    return True


def leave_out_damaged(files: list[str]) -> bool:
    """Leave segments that cannot be read out of this process's queries; whether there are any.

    Raises:
        DataFolderError: the disk or the permissions are at fault, not the segments.
    """
    found = {}
    for name in files:
        with folder_errors(Path(name).parent):
            if not is_readable(Path(name)):
                found[name] = Path(name).stat().st_mtime_ns
                _log.error("%s cannot be read and is left out of answers", name)
    _left_out.update(found)
    return bool(found)


def is_left_out(name: str) -> bool:
    """Whether a segment was found to be unreadable, and has not been replaced since."""
    with suppress(FileNotFoundError):
        return name in _left_out and Path(name).stat().st_mtime_ns == _left_out[name]
    return True


def set_aside(root: Path, path: Path) -> Path:
    """Move a damaged segment out of the way of queries and erasures; return its new path.

    Raises:
        OSError: it cannot be moved.
    """
    target = root / DAMAGED / path.parent.parent.name / path.parent.name / path.name
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.rename(target)
    name = path.relative_to(root).as_posix()
    Catalog(FolderStore(root)).commit(
        lambda before: msgspec.structs.replace(
            before, segments=tuple(each for each in before.segments if each.name != name)
        )
    )
    _log.error(
        "%s cannot be read and was set aside as %s: its rows are missing in answers",
        path,
        target,
    )
    return target

"""Positions expire after a day: the folders of whole hours are dropped."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from headcount.errors import DataFolderError
from headcount.history.hours import HOUR_S, folder, hour_start
from headcount.history.segment_files import DAMAGED

KEEP_S = 24 * HOUR_S


def expired(names: Iterable[str], now_s: float, keep_s: float = KEEP_S) -> list[str]:
    """The hour folders of which every row is at least `keep_s` old at `now_s`; other names are never included.

    An hour goes as a whole, so its first rows stay for up to `keep_s` and one hour.
    """
    starts = {name: hour_start(name) for name in names}
    return [name for name, start in starts.items() if start is not None and start + HOUR_S + keep_s <= now_s]


def drop_expired(data: Path, now_s: float, keep_s: float = KEEP_S) -> list[Path]:
    """Remove the expired hours of fixes and counts.

    Don't call it during a flush, which may write into such an hour.

    Returns:
        The removed folders.

    Raises:
        DataFolderError: a folder can't be removed.
    """
    dropped = []
    for kind in ("fixes", "counts", f"{DAMAGED}/fixes", f"{DAMAGED}/counts"):
        root = folder(data) / kind
        try:
            names = [path.name for path in root.iterdir()] if root.is_dir() else []
            for name in expired(names, now_s, keep_s):
                shutil.rmtree(root / name)
                dropped.append(root / name)
        except OSError as error:
            raise DataFolderError(
                str(root),
                f"an hour older than {keep_s / HOUR_S:g} h can't be removed: {error.strerror} ({error.filename})",
                "Make the folder writable for this user: positions must not be kept longer.",
            ) from error
    return dropped

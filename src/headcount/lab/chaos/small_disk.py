"""A small disk for the data folder, so that it can fill up: a tmpfs, if it may be mounted."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SIZE_BYTES = 768 << 20
FILLER = "filler"


@contextlib.contextmanager
def small_disk(folder: Path, size_bytes: int = SIZE_BYTES) -> Iterator[str]:
    """Mount a small disk at `folder`, which is created, while the block runs.

    Yields:
        Why there is none; "" if there is one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    reason = _mount(folder, size_bytes)
    try:
        yield reason
    finally:
        if not reason:
            _unmount(folder)


def _mount(folder: Path, size_bytes: int) -> str:
    mount = shutil.which("mount")
    if sys.platform != "linux" or mount is None:
        return "no mount program of Linux"
    if os.geteuid() != 0:
        return "only root may mount a disk"
    mounted = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={size_bytes}", "headcount-chaos", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if mounted.returncode == 0 else f"mount failed: {mounted.stderr.strip()}"


def _unmount(folder: Path) -> None:
    umount = shutil.which("umount") or "/bin/umount"
    if subprocess.run([umount, folder], capture_output=True, check=False).returncode:
        subprocess.run([umount, "-l", folder], capture_output=True, check=False)


def fill(folder: Path) -> int:
    """Fill the disk; return the number of bytes."""
    descriptor = os.open(folder / FILLER, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        free = shutil.disk_usage(folder).free
        with contextlib.suppress(OSError):
            os.posix_fallocate(descriptor, 0, free)
        os.lseek(descriptor, 0, os.SEEK_END)
        try:
            while os.write(descriptor, bytes(4096)):
                free += 4096
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        return free
    finally:
        os.close(descriptor)


def release(folder: Path) -> None:
    """Free the space again."""
    (folder / FILLER).unlink(missing_ok=True)

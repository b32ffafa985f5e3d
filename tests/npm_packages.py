"""Packages of npm for tests, installed from a lock once per machine."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import time
from pathlib import Path

import pytest

CACHE = Path.home() / ".cache" / "headcount" / "npm"
INSTALL_S = 240
#: An older installation without a use is removed with the next one.
UNUSED_S = 30 * 86_400
_FILES = ("package.json", "package-lock.json", ".npmrc")


def installed(folder: Path) -> Path:
    """A folder with the `node_modules` of a folder's lock; the test is skipped without npm.

    It stays in the cache of this user until the lock changes, and all tests share it: write nothing into it.
    """
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    files = [folder / name for name in _FILES]
    key = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
    folder_of_all = CACHE / folder.name
    folder_of_all.mkdir(parents=True, exist_ok=True)
    found = folder_of_all / key
    with (folder_of_all / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            for old in folder_of_all.glob("*/"):
                if old.stat().st_mtime < time.time() - UNUSED_S:
                    shutil.rmtree(old)
            partial = folder_of_all / "partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            for path in files:
                shutil.copy(path, partial)
            command = ["npm", "ci", "--no-fund", "--no-audit", "--ignore-scripts", "--loglevel=error"]
            ran = subprocess.run(
                command, cwd=partial, capture_output=True, text=True, check=False, timeout=INSTALL_S
            )
            assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
            partial.rename(found)
        found.touch()
    return found

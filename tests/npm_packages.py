"""Packages of npm for tests, installed from a lock once per machine."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

CACHE = Path.home() / ".cache" / "headcount" / "npm"
INSTALL_S = 240
_FILES = ("package.json", "package-lock.json", ".npmrc")


def installed(folder: Path) -> Path:
    """A folder with the `node_modules` of a folder's lock; the test is skipped without npm.

    It stays in the cache of this user until the lock changes, and all tests share it: write nothing into it.
    """
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    files = [folder / name for name in _FILES]
    key = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
    found = CACHE / f"{folder.name}-{key}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            for old in CACHE.glob(f"{folder.name}-*"):
                shutil.rmtree(old)
            partial = CACHE / f"{folder.name}.partial"
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
    return found

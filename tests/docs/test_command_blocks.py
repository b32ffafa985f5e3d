"""The command blocks of the pages work, each page on a machine of its own.

A page runs in Linux namespaces: its ports and its processes are its own, and all of them end with the page.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from .command_blocks import blocks_of, run_blocks
from .pages import PAGES, name

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.timeout(900)]

_LOOPBACK = """python -c '
import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP'
"""


@pytest.fixture(scope="module")
def own_machine() -> list[str]:
    """The command that runs another one in namespaces of its own."""
    own = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    own += [] if os.geteuid() == 0 else ["--map-root-user"]
    if shutil.which("unshare") is None or subprocess.run([*own, "true"], check=False).returncode:
        pytest.skip("needs Linux namespaces: `unshare --net --mount --pid`")
    return own


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(block.reason is None for block in blocks_of(page))], ids=name
)
def test_the_commands_of_a_page_work(page: Path, own_machine: list[str], tmp_path: Path) -> None:
    """All command blocks of a page succeed, in order."""
    run_blocks(page, tmp_path, own_machine, prelude=_LOOPBACK)

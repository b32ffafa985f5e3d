"""The command blocks of the pages work, each page on a machine of its own.

A page runs in Linux namespaces: its ports and its processes are its own, and all of them end with the page.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .command_blocks import LOOPBACK, blocks_of, own_machine, run_blocks
from .pages import PAGES, name

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def machine() -> list[str]:
    """The command that runs another one in namespaces of its own."""
    return own_machine()


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(block.reason is None for block in blocks_of(page))], ids=name
)
def test_the_commands_of_a_page_work(page: Path, machine: list[str], tmp_path: Path) -> None:
    """All command blocks of a page succeed, in order."""
    run_blocks(page, tmp_path, machine, prelude=LOOPBACK)

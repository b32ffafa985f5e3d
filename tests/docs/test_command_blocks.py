"""The command blocks of the pages, run as a user types them, each page on a machine of its own.

A page runs in Linux namespaces: its ports and its processes are its own, and all of them end with the page.
It starts in a folder that holds what the page takes for granted: the folders of the checkout; for
a guide, also the site file with which "Count your own campus" ends. A block that cannot run has a comment
before it: `<!-- not run: REASON -->`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from .pages import DOCS, PAGES, ROOT, name

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.timeout(600)]

OWN_CAMPUS = DOCS / "start" / "own-campus.md"
_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>\S[^>]*) -->\n+)?^(?P<fence> *```(?:sh|bash|shell|console)\n)(?P<code>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
#: Commands that run until Ctrl-C, each in a terminal of its own.
_ENDLESS = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?(?:headcount (?:up|demo|simulate(?!.*--duration))\b"
    r"|mosquitto_sub\b(?!.* -[CW])|(?:\.venv/bin/)?(?:python3?|node) examples/)"
)
#: Replacements of commands, because the environment exists, and a browser is of no use here.
_INSTEAD = {
    "make env": ":",
    "make demo": "headcount demo --no-browser",
    'export PATH="$PWD/.venv/bin:$PATH"': ":",
}
#: The map of a university with one building.
_MAP = """<osm version="0.6" generator="test">
  <node id="1" lat="52.67" lon="-8.58"/><node id="2" lat="52.67" lon="-8.56"/>
  <node id="3" lat="52.68" lon="-8.56"/><node id="4" lat="52.68" lon="-8.58"/>
  <node id="5" lat="52.673" lon="-8.574"/><node id="6" lat="52.673" lon="-8.572"/>
  <node id="7" lat="52.674" lon="-8.572"/><node id="8" lat="52.674" lon="-8.574"/>
  <way id="1"><nd ref="1"/><nd ref="2"/><nd ref="3"/><nd ref="4"/><nd ref="1"/>
    <tag k="amenity" v="university"/><tag k="name" v="University of Limerick"/></way>
  <way id="2"><nd ref="5"/><nd ref="6"/><nd ref="7"/><nd ref="8"/><nd ref="5"/>
    <tag k="building" v="university"/><tag k="name" v="Glucksman Library"/></way>
</osm>
"""
#: The start of each script: strict; HTTP errors are failures; terminals with programs that run until Ctrl-C.
_PRELUDE = r"""
set -Eeuo pipefail -m
trap 'echo "FAILED with exit code $?: $BASH_COMMAND" >&2' ERR
curl() { command curl --fail-with-body "$@"; }
terminals=()
python -c '
import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh14x", b"lo", 1))  # switch on the loopback interface'

terminal() {
  local log
  [[ $1 == *"headcount "@(up|demo)* ]] && ctrl_c
  log=$(mktemp -p "$HOME")
  (eval "$1") >"$log" 2>&1 </dev/null &
  terminals+=($!)
  until ready "${terminals[-1]}" "$1" "$log"; do
    kill -0 "${terminals[-1]}" 2>/dev/null && ((SECONDS < 300)) || { cat "$log" >&2; return 1; }
    sleep 0.1
  done
}

ready() {
  if [[ $2 == *"headcount "@(up|demo)* ]]; then grep -q Ctrl-C "$3"; else [[ -s $3 ]] || connected "$1"; fi
}

connected() {
  python -c '
import os, psutil, sys
mine = [each for each in psutil.process_iter() if os.getpgid(each.pid) == int(sys.argv[1])]
sys.exit(not any(line.status == "ESTABLISHED" for each in mine for line in each.net_connections()))' "$1"
}

ctrl_c() {
  while ((${#terminals[@]})); do
    kill -INT -- "-${terminals[-1]}" 2>/dev/null || true
    wait "${terminals[-1]}" || echo "terminal ${#terminals[@]} ended with $?"
    unset 'terminals[-1]'
  done
}
"""


@dataclass(frozen=True)
class Block:
    """A command block of a page."""

    line: int
    code: str
    reason: str | None  # why it does not run

    def script(self, page: str) -> str:
        """The block as it is typed."""
        lines = [re.split(r"\s+# ", line)[0] for line in self.code.replace("\\\n", " ").splitlines()]
        *others, last = [_INSTEAD.get(line, line) for line in lines]
        assert not any(map(_ENDLESS.match, others)), (
            f"{page}:{self.line}: nothing follows a command without end"
        )
        last = f"terminal {shlex.quote(last)}" if _ENDLESS.match(last) else last
        return "\n".join((f"echo {shlex.quote(f'--- {page}:{self.line}')}", *others, last))


def blocks_of(page: Path) -> list[Block]:
    """The command blocks of a page."""
    text = page.read_text()
    return [
        Block(text.count("\n", 0, found.start("fence")) + 1, found["code"], found["reason"])
        for found in _BLOCK.finditer(text)
    ]


def running_pages() -> list[Path]:
    """The pages with a block that runs."""
    return [page for page in PAGES if any(block.reason is None for block in blocks_of(page))]


def namespaces() -> list[str]:
    """The command that makes a machine of its own, if this one allows that."""
    own = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    own += [] if os.geteuid() == 0 else ["--map-root-user"]
    if shutil.which("unshare") is None or subprocess.run([*own, "true"], check=False).returncode:
        pytest.skip("needs Linux namespaces: `unshare --net --mount`")
    return own


def run_blocks(page: Path, blocks: list[Block], folder: Path) -> None:
    """Type the blocks in a folder.

    Raises:
        AssertionError: a command failed.
    """
    script = folder.parent / "script"
    typed = (block.script(name(page)) for block in blocks if block.reason is None)
    script.write_text("\n".join((_PRELUDE, *typed, "ctrl_c\n")))
    result = subprocess.run(
        [*namespaces(), "bash", str(script)],
        cwd=folder,
        env={
            "HOME": str(folder.parent),
            "LANG": "C.UTF-8",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin",
        },
        input="y\n" * 100,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=360,
        check=False,
    )
    print(result.stdout)
    assert result.returncode == 0, result.stdout[-3000:]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder in which a user types."""
    folder = tmp_path / "headcount"
    folder.mkdir()
    for part in (".venv", "deploy", "docs", "examples", "sites", "src", "tests"):
        (folder / part).symlink_to(ROOT / part)
    (folder / "campus.osm").write_text(_MAP)
    return folder


@pytest.mark.parametrize("page", running_pages(), ids=name)
def test_the_commands_of_a_page_work(page: Path, folder: Path) -> None:
    """All command blocks of a page succeed, in order."""
    if page.parent.name == "guides":
        run_blocks(
            OWN_CAMPUS, [block for block in blocks_of(OWN_CAMPUS) if "site import" in block.code], folder
        )
    run_blocks(page, blocks_of(page), folder)

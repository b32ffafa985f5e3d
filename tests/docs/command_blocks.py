"""Command blocks of pages, typed as a user types them.

A block that cannot run has a comment before it: `<!-- not run: REASON -->`. With the reason `needs Docker` it
runs beside an engine, in tests/containers. Blocks run in a folder that holds what a page takes for granted:
the folders of the checkout, and for a guide the site file with which "Count your own campus" ends.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest

from .pages import DOCS, ROOT, name

_OWN_CAMPUS = DOCS / "start" / "own-campus.md"
_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>\S[^>]*) -->\n+)?^(?P<fence> *```(?:sh|bash|shell|console)\n)(?P<code>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
#: Commands that run until Ctrl-C, each in a terminal of its own.
_ENDLESS = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?(?:headcount (?:up|demo|run|simulate(?!.*--duration))\b"
    r"|mosquitto\b(?!_)|mosquitto_sub\b(?!.* -[CW])|(?:\.venv/bin/)?(?:python3?|node) examples/)"
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

terminal() {
  local log
  [[ $1 == *"headcount "@(up|demo)* ]] && ctrl_c
  log=$(mktemp -p "$HOME")
  (eval "$1") >"$log" 2>&1 </dev/null &
  terminals+=($!)
  until ready "${terminals[-1]}" "$1" "$log"; do
    kill -0 "${terminals[-1]}" 2>/dev/null || { cat "$log" >&2; return 1; }
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


#: The start of a script on a machine of its own.
LOOPBACK = """python -c '
import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP'
"""
#: Seconds for the commands of a page; a test that runs them has a larger limit.
LIMIT_S = 800


def own_machine() -> list[str]:
    """The command that runs another one in Linux namespaces of its own: ports and processes, which end with it."""
    own = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    own += [] if os.geteuid() == 0 else ["--map-root-user"]
    if shutil.which("unshare") is None or subprocess.run([*own, "true"], check=False).returncode:
        pytest.skip("needs Linux namespaces: `unshare --net --mount --pid`")
    return own


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


def _user_folder(parent: Path, page: Path) -> Path:
    """The folder in which a user of a page types."""
    folder = parent / "headcount"
    folder.mkdir()
    for part in (".venv", "docs", "examples", "sites", "src", "tests"):
        (folder / part).symlink_to(ROOT / part)
    shutil.copytree(ROOT / "deploy", folder / "deploy")
    (folder / "campus.osm").write_text(_MAP)
    if page.parent.name == "guides":
        imports = [block.code for block in blocks_of(_OWN_CAMPUS) if "site import" in block.code]
        _run([], imports, folder, {})
    return folder


def run_blocks(
    page: Path,
    parent: Path,
    machine: Sequence[str] = (),
    *,
    reason: str | None = None,
    prelude: str = "",
    variables: Mapping[str, str] = MappingProxyType({}),
    replaced: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Type the blocks of a page in a new folder.

    Args:
        page: the page.
        parent: the folder of the new one.
        machine: a command that runs another command.
        reason: of the blocks that run.
        prelude: typed before the blocks.
        variables: of the environment.
        replaced: parts of commands, and what is typed instead.

    Raises:
        AssertionError: a command failed.
    """
    typed = "\n".join(block.script(name(page)) for block in blocks_of(page) if block.reason == reason)
    for part, other in replaced.items():
        typed = typed.replace(part, other)
    _run(machine, [_PRELUDE, prelude, typed, "ctrl_c"], _user_folder(parent, page), variables)


def _run(machine: Sequence[str], script: Sequence[str], folder: Path, variables: Mapping[str, str]) -> None:
    file = folder.parent / "script"
    file.write_text("\n".join((*script, "")))
    process = subprocess.Popen(
        [*machine, "timeout", "--signal=INT", "--kill-after=60", str(LIMIT_S), "bash", str(file)],
        cwd=folder,
        env={
            "HOME": str(folder.parent),
            "LANG": "C.UTF-8",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin",
            **variables,
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output, _ = process.communicate("y\n" * 100)
    print(output)
    assert process.returncode == 0, output[-3000:]

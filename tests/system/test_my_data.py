"""A person's own data in the running system: seen, commanded, paused, on the page, by the device's credentials."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from system.running import ROOT, UL, Up, environment, headcount
from waiting import BUSY_S, LIMIT_S, wait_until

pytestmark = pytest.mark.slow
LIBRARY = "glucksman-library"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")


class Person:
    """A registered device, its phone (an example of the documents), and what they may ask."""

    def __init__(self, up: Up) -> None:
        """Register it."""
        self._up = up
        self._base = f"http://127.0.0.1:{up.ports['http']}"
        added = json.loads(self.desk("add", "--kind", "person", "--label", "Ada", "--json", site=True))
        self.id, self.secret = str(added["id"]), str(added["secret"])

    def desk(self, *arguments: str, site: bool = False, code: int = 0) -> str:
        """The output of a command of `headcount device`."""
        where = ["--data", str(self._up.data), "--nats-port", str(self._up.ports["nats"])]
        where += ["--site", str(UL)] if site else []
        done = headcount("device", *arguments, *where, cwd=self._up.folder)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """The JSON that the device itself gets."""
        with httpx.Client(
            base_url=self._base, trust_env=False, timeout=LIMIT_S, auth=(self.id, self.secret)
        ) as http:
            answer = http.request(method, path, **options)
        assert answer.is_success, answer.text
        return answer.json()

    @contextmanager
    def phone(self) -> Iterator[Path]:
        """The phone is on; what it prints."""
        said = self._up.folder / "phone.txt"
        command = [sys.executable, str(ROOT / "examples" / "obey.py"), "127.0.0.1", str(self._up.mqtt_port)]
        with said.open("wb") as output:
            process = subprocess.Popen([*command, self.id, self.secret], stdout=output, stderr=output)
            try:
                yield said
            finally:
                process.terminate()
                process.wait(BUSY_S)


def test_a_person_and_their_data(tmp_path: Path) -> None:
    """A phone is counted, obeys, is explained, pauses and resumes, and all of it stands in its export."""
    with Up(tmp_path, open=False) as up:
        wait_until(up.is_ready, "the counts are live")
        ada = Person(up)
        given = ada.desk("command", ada.id, "message", "waits for you")
        assert "queued" in given
        with ada.phone() as said:
            wait_until(lambda: LIBRARY in ada.ask("GET", "/v1/me")["zones"], "it is counted")
            wait_until(lambda: b"command message" in said.read_bytes(), "what waited has come")
            done = ada.desk("command", ada.id, "interval", "--seconds", "1", "--wait")
            assert "acknowledged" in done
            refused = ada.desk("command", ada.id, "message", "hello", "--wait", code=1)
            assert "refused: no screen" in refused
            shown = ada.desk("trace", ada.id, "--reason", "ticket 12", site=True)
            assert f"enters {LIBRARY}" in shown
            assert "worker         agrees" in shown
            states = {c["state"] for c in ada.ask("GET", "/v1/me")["commands"]}
            assert states == {"acknowledged", "refused"}

            assert ada.ask("POST", "/v1/me/pause")["status"] == "paused"
            wait_until(lambda: ada.ask("GET", "/v1/me")["zones"] == [], "it has left")
            assert ada.ask("POST", "/v1/me/resume")["status"] == "active"
            wait_until(lambda: LIBRARY in ada.ask("GET", "/v1/me")["zones"], "it is counted again")

            found = ada.ask("GET", "/v1/me/export")
            assert found["registry"]["label"] == "Ada"
            assert len(found["log"]["messages"]) >= 2
            assert "removed" in {change["reason"] for change in found["memberships"]}
            assert [look["actor"] for look in found["looks"]] == ["command line"]
            assert ada.secret not in json.dumps(found)


@pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"no browser at {CHROMIUM}")
@pytest.mark.skipif(shutil.which("node") is None, reason="no Node.js")
@pytest.mark.skipif(
    not (ROOT / "web" / "node_modules" / "playwright-core").is_dir(), reason="no playwright-core: make web"
)
@pytest.mark.skipif(
    not (ROOT / "src" / "headcount" / "web" / "me.html").is_file(), reason="the page isn't built: make web"
)
def test_the_page(tmp_path: Path) -> None:
    """In a real browser on a phone's screen: sign in, see, download, pause, resume, erase; a link works once."""
    with Up(tmp_path, open=False) as up:
        wait_until(up.is_ready, "the counts are live")
        ada, bob = Person(up), Person(up)
        base = f"http://127.0.0.1:{up.ports['http']}"
        with ada.phone():
            wait_until(lambda: LIBRARY in ada.ask("GET", "/v1/me")["zones"], "it is counted")
            browse(base, ada, HEADCOUNT_ERASE="1")
        with bob.phone():
            wait_until(lambda: LIBRARY in bob.ask("GET", "/v1/me")["zones"], "it is counted")
            link = json.loads(bob.desk("link", bob.id, "--public-url", base, "--json"))
            browse(base, bob, HEADCOUNT_JOIN=str(link["code"]))


def browse(base: str, person: Person, **variables: str) -> None:
    """Run the checks of the page."""
    ours = {"HEADCOUNT_URL": f"{base}/", "HEADCOUNT_DEVICE": person.id, "HEADCOUNT_SECRET": person.secret}
    done = subprocess.run(
        ["node", str(ROOT / "web" / "e2e" / "me.mjs")],
        env=environment() | ours | variables,
        cwd=ROOT / "web",
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

"""A person's own data in the running system: seen, commanded, paused, on the page, by the device's credentials."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from system.running import ROOT, Up, environment, headcount
from waiting import BUSY_S, LIMIT_S, wait_until

pytestmark = pytest.mark.slow
LIBRARY = "glucksman-library"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")


def needs_browser(test: Callable[[Path], None]) -> Callable[[Path], None]:
    """Skip a test where Chromium, Node.js or the built pages are missing."""
    missing = {
        f"no browser at {CHROMIUM}": Path(CHROMIUM).exists(),
        "no Node.js": shutil.which("node") is not None,
        "no tools of the pages: make web": (ROOT / "web" / "node_modules" / "axe-core").is_dir(),
        "the pages are not built: make web": (ROOT / "src" / "headcount" / "web" / "privacy.html").is_file(),
    }
    reasons = [reason for reason, there in missing.items() if not there]
    return pytest.mark.skipif(bool(reasons), reason=", ".join(reasons) or "-")(test)


class Person:
    """A registered device, its phone (an example of the documents), and what they may ask."""

    def __init__(self, up: Up) -> None:
        """Register it."""
        self._up = up
        self._base = f"http://127.0.0.1:{up.ports['http']}"
        added = json.loads(self.desk("add", "--kind", "person", "--label", "Ada", "--json"))
        self.id, self.secret = str(added["id"]), str(added["secret"])

    def desk(self, *arguments: str, code: int = 0) -> str:
        """The output of a command of `headcount device`."""
        where = ["--data", str(self._up.data), "--nats-port", str(self._up.ports["nats"])]
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
            shown = ada.desk("trace", ada.id, "--reason", "ticket 12")
            assert f"enters {LIBRARY}" in shown
            assert "worker         agrees" in shown
            states = {c["state"] for c in ada.ask("GET", "/v1/me")["commands"]}
            assert states == {"acknowledged", "refused"}

            assert ada.ask("POST", "/v1/me/pause")["status"] == "paused"
            assert ada.ask("GET", "/v1/me")["zones"] == []

            def has_left() -> bool:
                found = ada.ask("GET", "/v1/me/export")
                return "removed" in {change["reason"] for change in found["memberships"]}

            wait_until(has_left, "the worker has removed it")
            assert ada.ask("POST", "/v1/me/resume")["status"] == "active"
            wait_until(lambda: LIBRARY in ada.ask("GET", "/v1/me")["zones"], "it is counted again")

            found = ada.ask("GET", "/v1/me/export")
            assert found["registry"]["label"] == "Ada"
            assert len(found["log"]["messages"]) >= 2
            assert [look["actor"] for look in found["looks"]] == ["command line"]
            assert ada.secret not in json.dumps(found)


@needs_browser
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


@needs_browser
def test_all_pages(tmp_path: Path) -> None:
    """In a real browser, all pages pass axe-core's rules, and a one-time link shows exact counts on the map."""
    with Up(tmp_path, open=False) as up:
        wait_until(up.is_ready, "the counts are live")
        ada = Person(up)
        base = f"http://127.0.0.1:{up.ports['http']}"
        command = [
            sys.executable,
            "-m",
            "headcount",
            "login-link",
            "--public-url",
            base,
            "--data",
            str(up.data),
        ]
        link = subprocess.run(
            [*command, "--nats-port", str(up.ports["nats"])],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=True,
        )
        with ada.phone():
            wait_until(lambda: LIBRARY in ada.ask("GET", "/v1/me")["zones"], "it is counted")
            public = f"{base}/v1/sites/ul/counts"
            wait_until(
                lambda: httpx.get(public, trust_env=False).status_code == 200, "there are public counts"
            )
            browse(base, ada, "pages.mjs", HEADCOUNT_LOGIN=link.stdout.strip())


def browse(base: str, person: Person, checks: str = "me.mjs", **variables: str) -> None:
    """Run the checks of a page."""
    ours = {"HEADCOUNT_URL": f"{base}/", "HEADCOUNT_DEVICE": person.id, "HEADCOUNT_SECRET": person.secret}
    done = subprocess.run(
        ["node", str(ROOT / "web" / "e2e" / checks)],
        env=environment() | ours | variables,
        cwd=ROOT / "web",
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

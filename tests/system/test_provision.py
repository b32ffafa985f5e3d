"""From the command line to the count: a device is registered, handed over by a link, and counted."""

from __future__ import annotations

import csv
import io
import json
import stat
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from system.running import Up, headcount
from system.senders import fix, mosquitto_pub, spot
from waiting import LIMIT_S, wait_until

LIBRARY = "glucksman-library"


class Deployment:
    """A running headcount with accounts, and its command line."""

    def __init__(self, up: Up) -> None:
        """Ask this one."""
        self.up = up
        self.base = f"http://127.0.0.1:{up.ports['http']}"

    def device(self, *arguments: str) -> str:
        """The output of a command of `headcount device`."""
        where = ["--data", str(self.up.data), "--nats-port", str(self.up.ports["nats"])]
        done = headcount("device", *arguments, *where, cwd=self.up.folder)
        assert done.returncode == 0, done.stderr
        assert self.up.password not in done.stdout + done.stderr
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """The same, as JSON."""
        return json.loads(self.device(*arguments, "--json"))

    def send(self, user: str, password: str, topic: str, payload: bytes, *, refused: bool = False) -> None:
        """Publish with credentials, and that the broker takes it, or refuses to let it in."""
        options = ["-u", user, "-P", password, "-i", user, "-q", "1"]
        if not refused:
            mosquitto_pub(self.up.mqtt_port, topic, payload, *options)
            return
        command = [
            "mosquitto_pub",
            "-h",
            "127.0.0.1",
            "-p",
            str(self.up.mqtt_port),
            "-t",
            topic,
            "-s",
        ]
        done = subprocess.run(
            [*command, *options], input=payload, capture_output=True, check=False, timeout=60
        )
        assert done.returncode != 0

    def counted(self, people: int, vehicles: int) -> None:
        """Wait until the library has these counts."""
        wait_until(
            lambda: self.up.counts()[LIBRARY] == (people, vehicles), f"{people} and {vehicles} are counted"
        )


@pytest.mark.slow
def test_a_device_from_the_command_line_to_the_count(tmp_path: Path) -> None:
    """Handed over by a link that works once, it is counted; rotated or disabled, its old secret is refused."""
    with Up(tmp_path, open=False, arguments=["--suppress-below", "1"]) as up:
        here = Deployment(up)
        wait_until(up.is_ready, "the counts are live")
        added = here.json("add", "--kind", "person", "--label", "Ada Lovelace", "--group", "staff")
        topic = f"headcount/ul/person/{added['id']}/fix"
        here.send(added["id"], added["secret"], topic, fix(LIBRARY))
        here.counted(1, 0)
        link = here.json("link", added["id"], "--public-url", here.base, "--qr", str(tmp_path / "ada.png"))
        assert (tmp_path / "ada.png").read_bytes().startswith(b"\x89PNG")
        file = unquote(link["owntracks"].removeprefix("owntracks:///config?url="))
        app = httpx.get(file, trust_env=False, timeout=LIMIT_S).raise_for_status().json()
        again = httpx.post(
            f"{here.base}/v1/provision", json={"code": link["code"]}, trust_env=False, timeout=LIMIT_S
        )
        assert again.status_code == 404
        assert again.json()["type"] == "/problems/link-refused"
        assert (app["username"], app["host"], app["port"]) == (added["id"], "127.0.0.1", up.mqtt_port)
        here.send(added["id"], added["secret"], topic, fix(LIBRARY), refused=True)
        lat, lon = spot(LIBRARY)
        message = {"_type": "location", "tst": int(time.time()), "lat": lat, "lon": lon, "acc": 6}
        here.send(app["username"], app["password"], app["pubTopicBase"], json.dumps(message).encode())
        here.counted(1, 0)  # the same person
        assert [each["label"] for each in here.json("list", "--text", "ada")["devices"]] == ["Ada Lovelace"]
        here.device("disable", added["id"])
        here.send(app["username"], app["password"], topic, fix(LIBRARY), refused=True)
        _many(here, tmp_path)
        assert not [
            word for word in ("Ada", added["id"], link["code"], app["password"]) if word in up.printed()
        ]


def _many(here: Deployment, folder: Path) -> None:
    """A table and claim codes give devices that are counted."""
    (folder / "fleet.csv").write_text("kind,label\nvehicle,Van 1\nvehicle,=Van 2\n")
    here.device("import", str(folder / "fleet.csv"), "--output", str(folder / "secrets.csv"))
    assert stat.S_IMODE((folder / "secrets.csv").stat().st_mode) == 0o600
    rows = list(csv.DictReader((folder / "secrets.csv").read_text().splitlines()))
    for row in rows:
        here.send(row["id"], row["secret"], f"headcount/ul/vehicle/{row['id']}/fix", fix(LIBRARY))
    here.counted(1, 2)
    exported = here.device("export")
    assert {row["id"] for row in rows} <= {row["id"] for row in csv.DictReader(io.StringIO(exported))}
    codes = here.device("claim", "--kind", "person", "--count", "2", "--public-url", here.base)
    code = next(csv.DictReader(io.StringIO(codes)))["code"]
    told = (
        httpx.post(f"{here.base}/v1/provision", json={"code": code}, trust_env=False, timeout=LIMIT_S)
        .raise_for_status()
        .json()
    )
    here.send(told["device"], told["secret"], f"{told['topic']}/fix", fix(LIBRARY))
    here.counted(2, 2)
    here.device("remove", rows[0]["id"], "--yes")
    here.send(
        rows[0]["id"],
        rows[0]["secret"],
        f"headcount/ul/vehicle/{rows[0]['id']}/fix",
        fix(LIBRARY),
        refused=True,
    )


def test_impossible_provisioning_is_reported(tmp_path: Path) -> None:
    """Without a deployment, or with a bad table or output, a command ends with 2 and an error that states the problem."""
    table = tmp_path / "people.csv"
    table.write_text("kind\ncat\n")
    where = ["--data", str(tmp_path / "data")]
    for command, problem in (
        (["list"], "not the data folder of a deployment"),
        (["import", str(table)], "line 2: kind: is 'cat'. Use person or vehicle"),
        (["link", "a" * 20, "--public-url", "ftp://x"], "is not a valid URL"),
        (["show", "nobody"], "not the data folder of a deployment"),
    ):
        done = headcount("device", *command, *where, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert problem in done.stderr
        assert len(done.stderr.splitlines()) <= 2
    assert not (tmp_path / "data").exists()

"""Phones with OwnTracks in the running system: set up by links, encrypted, commanded, and kept through kills."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from case_files import case_json
from headcount.messages.times import iso
from system.owntracks_app import App, HttpApp, MqttApp
from system.running import Up, headcount
from system.senders import mosquitto_pub, program, spot
from waiting import LIMIT_S, wait_until

pytestmark = pytest.mark.slow
LIBRARY = "glucksman-library"
#: Ten minutes of locations that the app has stored without a network.
BACKLOG, INTERVAL_S = 60, 10


class Deployment:
    """A running deployment with accounts, its command line and its administrator."""

    def __init__(self, up: Up) -> None:
        """Of this system."""
        self.up = up
        self.base = f"http://127.0.0.1:{up.ports['http']}"
        token = self.run("token", "add", "test", "--role", "admin").strip()
        headers = {"authorization": f"Bearer {token}", "headcount-reason": "a test"}
        self.admin = httpx.Client(base_url=self.base, headers=headers, trust_env=False, timeout=LIMIT_S)

    def run(self, *arguments: str) -> str:
        """The output of a command that succeeds."""
        where = ["--data", str(self.up.data), "--nats-port", str(self.up.ports["nats"])]
        done = headcount(*arguments, *where, cwd=self.up.folder)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def phone(self, *options: str) -> dict[str, Any]:
        """The settings that a link with these options gives to the app on a new phone."""
        device = self.admin.post("/v1/sites/ul/devices", json={"kind": "person"}).json()["id"]
        made = json.loads(self.run("device", "link", device, "--public-url", self.base, "--json", *options))
        file = unquote(made["owntracks"].removeprefix("owntracks:///config?url="))
        answer = httpx.get(file, trust_env=False, timeout=LIMIT_S)
        assert answer.status_code == 200, answer.text
        settings: dict[str, Any] = answer.json()
        return settings

    def verdicts(self, app: App) -> list[str]:
        """The verdicts of the counting rules on a phone's last messages."""
        return [line["verdict"] for line in self.lines(app)]

    def is_complete(self, app: App, messages: list[dict[str, Any]]) -> bool:
        """Whether each of these locations is in the log, and none was accepted twice."""
        lines = self.lines(app)
        accepted = [line["t"] for line in lines if line["verdict"] == "accepted"]
        assert len(accepted) == len(set(accepted))
        assert {line["verdict"] for line in lines} <= {"accepted", "duplicate", "out_of_order"}
        return {line["t"] for line in lines} == {iso(message["tst"]) for message in messages}

    def lines(self, app: App) -> list[dict[str, Any]]:
        """The trace of a phone's last messages."""
        path = f"/v1/sites/ul/devices/{app.settings['username']}/trace"
        answer = self.admin.get(path, params={"limit": 500})
        assert answer.status_code == 200, answer.text
        return [line for line in answer.json()["lines"] if line["what"] == "fix"]

    def rejected(self, reason: str) -> float:
        """The number of messages that the adapters have rejected for a reason."""
        name = f'headcount_adapter_rejected_messages_total{{format="owntracks",reason="{reason}"}} '
        found = [line for line in self.admin.get("/metrics").text.splitlines() if line.startswith(name)]
        return float(found[0].removeprefix(name)) if found else 0.0

    def count(self) -> int:
        """People in the library now."""
        zones = self.admin.get("/v1/sites/ul/counts").json()["zones"]
        return int(next(zone["person"]["count"] for zone in zones if zone["zone"] == LIBRARY))

    def command(self, app: App, name: str, **fields: Any) -> Any:
        """Queue a command; return a function that returns its state."""
        path = f"/v1/sites/ul/devices/{app.settings['username']}/commands"
        answer = self.admin.post(path, json={"command": name, **fields})
        assert answer.status_code == 201, answer.text
        made = answer.json()["id"]
        return lambda: self.admin.get(f"{path}/{made}").json()["state"]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One system for all tests of this file."""
    arguments = ["--suppress-below", "1"]
    with Up(tmp_path_factory.mktemp("owntracks"), open=False, arguments=arguments) as up:
        wait_until(up.is_ready, "the counts are live")
        made = Deployment(up)
        yield made
        made.admin.close()


def location(at_s: float | None = None, zone: str = LIBRARY) -> dict[str, Any]:
    """A location message of the app."""
    lat, lon = spot(zone)
    now_s = time.time()
    return {
        "_type": "location",
        "lat": lat,
        "lon": lon,
        "acc": 6,
        "batt": 81,
        "conn": "w",
        "m": 2,
        "tid": "ab",
        "tst": int(now_s if at_s is None else at_s),
        "created_at": int(now_s if at_s is None else at_s),
    }


def backlog() -> list[dict[str, Any]]:
    """The locations of the last ten minutes."""
    start_s = time.time() - BACKLOG * INTERVAL_S
    return [location(start_s + number * INTERVAL_S) for number in range(BACKLOG)]


def test_payloads_of_real_apps(here: Deployment) -> None:
    """Each message of each generation of the apps is accepted on its topic, and positions become fixes."""
    settings = here.phone()
    app = MqttApp(settings)
    assert (settings["mode"], settings["sub"], settings["cmd"]) == (0, False, False)
    assert "encryptionKey" not in settings
    login = [
        "-u",
        settings["username"],
        "-P",
        settings["password"],
        "-q",
        "1",
        "-i",
        settings["clientId"],
        "-l",
    ]
    subtopics = {"transition": "/event", "location": "", "lwt": "", "steps": "/step", "card": "/info"}
    lines: dict[str, list[bytes]] = {}
    for number, payload in enumerate(case_json("owntracks.json").values()):
        type_ = payload["_type"]
        now = {"tst": int(time.time()) - 100 + number} if type_ in {"location", "transition"} else {}
        topic = settings["pubTopicBase"] + subtopics.get(type_, f"/{type_}")
        lines.setdefault(topic, []).append(json.dumps(payload | now).encode())
    for type_ in ("cmd", "configuration"):  # the app does not publish these
        del lines[f"{settings['pubTopicBase']}/{type_}"]
    for topic, messages in lines.items():
        where = ["-h", "127.0.0.1", "-p", str(here.up.mqtt_port), "-t", topic]
        subprocess.run(
            [program("mosquitto_pub"), *where, *login],
            input=b"\n".join(messages),
            check=True,
            timeout=LIMIT_S,
        )
    sent = len(lines[settings["pubTopicBase"]]) + len(lines[settings["pubTopicBase"] + "/event"]) - 2
    wait_until(lambda: len(here.verdicts(app)) >= sent, "all positions are fixes")
    assert "accepted" in here.verdicts(app)
    assert not {"malformed", "invalid", "future"} & set(here.verdicts(app))


def test_encrypted_phones_and_their_commands(here: Deployment) -> None:
    """A phone that encrypts is counted, executes encrypted commands, and confirms each with a location."""
    before = here.count()
    settings = here.phone("--encrypt", "--commands")
    assert len(settings["encryptionKey"]) == 32
    with MqttApp(settings, response=location()) as app:
        app.publish(location())
        wait_until(lambda: here.count() == before + 1, "the phone is counted")
        states = [here.command(app, "report"), here.command(app, "interval", interval_s=60)]
        states += [here.command(app, "zones"), here.command(app, "message", text="Welcome")]
        wait_until(lambda: {state() for state in states} == {"acknowledged"}, "the app has confirmed all")
        assert app.configuration["moveModeLocatorInterval"] == 60
        assert next(iter(app.regions.values()))["desc"].endswith("|2|0")
        assert {"reportLocation", "setConfiguration", "setWaypoints", "action"} == set(app.actions())
        clear = here.command(app, "clear_zones")
        wait_until(lambda: clear() == "acknowledged", "the app has no regions")
        assert not app.regions
        refused = here.admin.post(
            f"/v1/sites/ul/devices/{settings['username']}/commands", json={"command": "pause", "pause_s": 60}
        )
        assert refused.status_code == 422
    plain = json.dumps(location()).encode()
    login = ["-u", settings["username"], "-P", settings["password"], "-q", "1", "-i", settings["clientId"]]
    mosquitto_pub(here.up.mqtt_port, settings["pubTopicBase"], plain, *login)
    wait_until(lambda: here.rejected("not_encrypted") == 1, "the plain message is rejected")
    printed = here.up.printed()
    assert not [word for word in (settings["encryptionKey"], settings["username"]) if word in printed]


def test_a_command_waits_for_its_phone(here: Deployment) -> None:
    """A command waits until the phone connects; a phone without commands executes none."""
    app = MqttApp(here.phone("--commands"), response=location())
    state = here.command(app, "report")
    assert state() == "queued"
    with app:
        wait_until(lambda: state() == "acknowledged", "the phone has answered")
    assert app.actions() == ["reportLocation"]


def test_a_backlog_over_mqtt_survives_a_killed_server(here: Deployment) -> None:
    """Of ten minutes of locations, none is lost and none is counted twice, though the broker is killed meanwhile."""
    app, messages = MqttApp(here.phone("--encrypt")), backlog()
    with app:
        for number, message in enumerate(messages):
            if number == BACKLOG // 3:
                here.up.kill9("broker")
            app.publish(message)
    wait_until(lambda: here.is_complete(app, messages), "all locations are in the log")


# --- HTTP mode -----------------------------------------------------------------------------------
@pytest.mark.parametrize("platform", ["android", "ios"])
def test_http_mode(here: Deployment, platform: Any) -> None:
    """Phones in HTTP mode send encrypted positions and receive commands in the replies."""
    settings = here.phone("--http", "--encrypt", "--commands")
    assert (settings["mode"], settings["url"]) == (3, f"{here.base}/v1/owntracks")
    app = HttpApp(settings, platform)
    before = here.count()
    app.send([location()])
    wait_until(lambda: here.count() == before + 1, "the phone is counted")
    states = [here.command(app, "interval", interval_s=30), here.command(app, "zones")]
    app.send([location()], response=location())
    assert app.actions().count("reportLocation") == len(states)
    assert app.configuration["locatorInterval"] == 30
    assert app.regions
    assert [state() for state in states] == ["acknowledged", "acknowledged"]


@pytest.mark.parametrize("platform", ["android", "ios"])
def test_what_is_invalid_does_not_stop_what_follows(here: Deployment, platform: Any) -> None:
    """Invalid and other messages are answered with 200 and stored nowhere, so both apps send the next one."""
    app = HttpApp(here.phone("--http"), platform)
    messages = [payload | {"tst": None} for payload in case_json("owntracks.json").values()]
    messages += [{}, {"_type": "location", "lat": 91, "lon": 200, "tst": int(time.time())}, location()]
    app.send(messages)
    assert app.requests == len(messages)
    assert app.dropped == 0
    wait_until(lambda: here.verdicts(app) == ["accepted"], "the last message is accepted")


@pytest.mark.parametrize("platform", ["android", "ios"])
def test_a_backlog_over_http_survives_a_killed_server(here: Deployment, platform: Any) -> None:
    """Of ten minutes of locations, none is lost and none is counted twice, though API and log are killed meanwhile."""
    app = HttpApp(here.phone("--http"), platform)
    messages = backlog()
    sender = threading.Thread(target=app.send, args=(messages,))
    sender.start()
    for role in ("api", "broker"):
        wait_until(lambda: app.requests > 5, "the app sends")
        here.up.kill9(role)
    sender.join(LIMIT_S)
    assert not sender.is_alive()
    wait_until(lambda: here.is_complete(app, messages), "all locations are in the log")
    assert app.dropped == 0


def test_wrong_credentials(here: Deployment) -> None:
    """Wrong credentials are answered with 401, and the answer makes no browser ask for a password."""
    settings = here.phone("--http")
    answer = httpx.post(
        settings["url"],
        auth=(settings["username"], "wrong"),
        json=location(),
        trust_env=False,
        timeout=LIMIT_S,
    )
    assert answer.status_code == 401
    assert not answer.headers["www-authenticate"].startswith("Basic")

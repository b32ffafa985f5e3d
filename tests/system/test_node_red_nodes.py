"""The nodes of node-red-contrib-headcount in a real Node-RED, against a whole system, also under failures."""

from __future__ import annotations

import json
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from node_red_fixture import EXAMPLES, NodeRed, mosquitto, package
from system.running import Up, headcount
from system.senders import spot
from waiting import BUSY_S, LIMIT_S, wait_until

__all__ = ["package"]
ZONE = "glucksman-library"
CAR_PARK = "car-park-set-down"
#: Fixes of ten minutes, one a second.
BACKLOG = 600

pytestmark = [pytest.mark.slow, pytest.mark.doors]


@dataclass
class System:
    """A running system, with an API client and a token of an operator."""

    up: Up
    token: str
    api: httpx.Client

    @property
    def variables(self) -> dict[str, str]:
        """The environment of the flows."""
        return {
            "HEADCOUNT_URL": f"http://127.0.0.1:{self.up.ports['http']}",
            "HEADCOUNT_BROKER": f"mqtt://127.0.0.1:{self.up.mqtt_port}",
            "HEADCOUNT_PORT": str(self.up.mqtt_port),
            "HEADCOUNT_TOKEN": self.token,
        }

    def add_device(self, kind: str = "person", **fields: Any) -> dict[str, str]:
        """Register a device; its credentials for the node."""
        made = self.api.post("/v1/sites/ul/devices", json={"kind": kind, **fields})
        assert made.status_code == 201, made.text
        return {"device": made.json()["id"], "secret": made.json()["secret"]}

    def stored(self, first_s: float) -> list[float]:
        """The event times of the counted fixes of a test, which are whole seconds after its first."""
        query: dict[str, str | float] = {
            "from": first_s,
            "to": time.time() + 1,
            "limit": 5000,
            "reason": "test",
        }
        answer = self.api.get("/v1/sites/ul/fixes", params=query)
        assert answer.status_code == 200, answer.text
        times = [
            datetime.fromisoformat(each["properties"]["t"]).timestamp()
            for each in answer.json()["features"]
            if each["properties"]["verdict"] == "accepted"
        ]
        return sorted(t_s for t_s in times if abs((t_s - first_s + 0.5) % 1 - 0.5) < 0.0004)

    def count(self, zone: str, kind: str) -> int:
        """The number of a kind in a zone now."""
        number: int = self.api.get(f"/v1/sites/ul/zones/{zone}").json()[kind]["count"]
        return number


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """`headcount up` for registered devices only."""
    with Up(tmp_path_factory.mktemp("up"), open=False) as up:
        words = ("token", "add", "node-red", "--role", "operator", "--data", up.data)
        made = headcount(*words, "--nats-port", str(up.ports["nats"]), cwd=up.folder)
        token = next(word for word in made.stdout.split() if word.startswith("hc_"))
        with httpx.Client(
            base_url=f"http://127.0.0.1:{up.ports['http']}",
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,
            timeout=60,
        ) as api:
            yield System(up, token, api)


SERVER = {
    "id": "server",
    "type": "headcount-server",
    "url": "${HEADCOUNT_URL}",
    "broker": "${HEADCOUNT_BROKER}",
    "site": "ul",
    "tls": "",
}


def _node(id_: str, type_: str, *wires: str, **fields: Any) -> dict[str, Any]:
    place = {"x": 100, "y": 100}  # a node without a place is a config node
    return {
        "id": id_,
        "type": type_,
        "z": "t",
        "wires": [list(wires)],
        "server": "server",
        **place,
        **fields,
    }


def _flow(*nodes: dict[str, Any]) -> list[dict[str, Any]]:
    """Nodes with what they need; GET /out answers with the messages that arrived at `out`."""
    keep = "const out = flow.get('out') ?? []; out.push(msg.payload?.stack ?? msg.payload); flow.set('out', out);"
    return [
        {"id": "t", "type": "tab", "label": "test"},
        SERVER,
        _node("out", "function", func=keep, outputs=0),
        _node("get", "http in", "answer", url="/out", method="post"),
        _node(
            "answer", "function", "reply", func="msg.payload = flow.get('out') ?? []; return msg;", outputs=1
        ),
        _node("reply", "http response"),
        *nodes,
    ]


def _fix_flow(transport: str = "mqtt", **fields: Any) -> list[dict[str, Any]]:
    """Each body that is posted to /fix goes to a fix node; its errors and completions are kept."""
    settings = {"format": "fix", "kind": "person", "limit": 10_000, "keep": True, **fields}
    done = "msg.payload = 'done'; return msg;"
    return _flow(
        _node("in", "http in", "device", "ok", url="/fix", method="post"),
        _node("device", "function", "fix", func="return { ...msg, ...msg.req.query };", outputs=1),
        _node("ok", "function", "reply", func="return { ...msg, payload: '' };", outputs=1),
        _node("fix", "headcount-fix", transport=transport, **settings),
        _node("complete", "complete", "done", scope=["fix"]),
        _node("done", "function", "out", func=done, outputs=1),
        _node("catch", "catch", "failed", scope=["fix"], uncaught=False),
        _node("failed", "function", "out", func="msg.payload = msg.error.message; return msg;", outputs=1),
    )


def _fixes(first_s: float, count: int) -> list[dict[str, float]]:
    lat, lon = spot(ZONE)
    return [{"lat": lat, "lon": lon, "acc": 5, "t": round(first_s + n, 3)} for n in range(count)]


def test_a_backlog_survives_kills(tmp_path: Path, package: Path, system: System) -> None:
    """Ten minutes of fixes wait while headcount is down and Node-RED is killed; each is counted exactly once."""
    began_s = round(time.time() - BACKLOG - 60, 3)
    fixes = _fixes(began_s, BACKLOG + 60)
    credentials = {"fix": system.add_device()}
    with NodeRed(tmp_path, package, _fix_flow(), system.variables, credentials) as node_red:
        print("Node-RED", node_red.version())
        node_red.post("/fix", fixes[:10])
        wait_until(lambda: len(system.stored(began_s)) == 10, "the first fixes")
        system.up.stop()
        for start in range(10, BACKLOG, 10):
            node_red.post("/fix", fixes[start : start + 10])
        node_red.kill9()
        node_red.start()
        system.up.start()
        wait_until(lambda: len(system.stored(began_s)) == BACKLOG, "the backlog")

        # the broker is killed while fixes are sent
        killer = threading.Timer(0.3, lambda: system.up.kill9("broker"))
        killer.start()
        for fix in fixes[BACKLOG:]:
            node_red.post("/fix", fix)
            time.sleep(0.02)
        killer.join()
        wait_until(lambda: len(system.stored(began_s)) == len(fixes), "all fixes")
        assert system.stored(began_s) == pytest.approx([fix["t"] for fix in fixes], abs=0.0005)
        wait_until(system.up.is_ready, "the live counts")
        assert system.count(ZONE, "person") == 1
        wait_until(lambda: (tmp_path / "user" / "headcount" / "fix.queue").read_text() == "", "an empty file")
        assert not node_red.errors()


def test_http_stores_each_fix_once(tmp_path: Path, package: Path, system: System) -> None:
    """By HTTP, fixes wait while the API is killed, each is counted once, and a refused one reaches a catch node."""
    began_s = round(time.time() - 200, 3)
    fixes = _fixes(began_s, 150)
    flow = _fix_flow("http")
    with NodeRed(tmp_path, package, flow, system.variables, {"fix": system.add_device()}) as node_red:
        node_red.post("/fix", fixes[:50])
        system.up.kill9("api")
        for fix in fixes[50:100]:
            node_red.post("/fix", fix)
        node_red.kill9()
        node_red.start()
        node_red.post("/fix", [*fixes[100:], fixes[0] | {"lat": 95.0}])
        wait_until(system.up.is_ready, "the API")
        wait_until(lambda: len(system.stored(began_s)) == len(fixes), "all fixes")
        assert system.stored(began_s) == pytest.approx([fix["t"] for fix in fixes], abs=0.0005)
        wait_until(lambda: node_red.post("/out", {}).json(), "the refused fix")
        (refused,) = node_red.post("/out", {}).json()
        assert refused.startswith("Error: invalid: lat")


def test_a_gateway_sends_texts_by_http(tmp_path: Path, package: Path, system: System) -> None:
    """Objects and Base64 of other devices are counted by HTTP, too, as the kind of their format."""
    lat, lon = spot(ZONE)
    before = system.count(ZONE, "vehicle")
    flow = _fix_flow("http", format="car-iotp")
    gateway = system.add_device(gateway=True)
    with NodeRed(tmp_path, package, flow, system.variables, {"fix": gateway}) as node_red:
        cars = [{"id": f"car-{n}", "lat": lat, "lon": lon, "acc": 4, "t": time.time()} for n in range(3)]
        base64 = b64encode(json.dumps(cars[1]).encode()).decode()
        node_red.post("/fix", [cars[0], base64, cars[2]])
        wait_until(lambda: system.count(ZONE, "vehicle") == before + 3, "the cars")


def test_a_queue_in_memory_survives_a_deployment(tmp_path: Path, package: Path, system: System) -> None:
    """After the server's address is corrected, what waited in memory is sent; a deleted node leaves no file behind."""
    began_s = round(time.time() - 30, 3)
    fixes = _fixes(began_s, 10)
    wrong = SERVER | {"broker": "mqtt://127.0.0.1:1"}
    kept_file = _node(
        "kept", "headcount-fix", transport="mqtt", format="fix", kind="person", limit=9, keep=True
    )
    flow = _fix_flow(keep=False)
    credentials = {"fix": system.add_device()}
    first = [wrong if node is SERVER else node for node in flow] + [kept_file]
    with NodeRed(tmp_path, package, first, system.variables, credentials) as node_red:
        node_red.post("/fix", fixes)
        assert (tmp_path / "user" / "headcount" / "kept.queue").exists()
        node_red.deploy(flow)
        wait_until(lambda: len(system.stored(began_s)) == len(fixes), "all fixes")
        assert not (tmp_path / "user" / "headcount" / "kept.queue").exists()


def test_encrypted_with_an_own_authority(tmp_path: Path, package: Path) -> None:
    """With the certificate in a TLS configuration, fixes and counts are encrypted; without it, nothing is sent."""
    with Up(tmp_path, arguments=["--tls", "on"]) as up:
        certificate = up.data / "tls" / "server.crt"
        variables = {
            "HEADCOUNT_URL": f"https://localhost:{up.ports['http']}",
            "HEADCOUNT_BROKER": f"mqtts://localhost:{up.mqtt_port}",
        }
        tls = {"id": "tls", "type": "tls-config", "cert": "", "key": "", "ca": str(certificate)}
        count = _node("count", "headcount-count", "out", zone=ZONE, every=1)
        flow = [*_fix_flow(), count, tls | {"verifyservercert": True}]
        trusting = [node | {"tls": "tls"} if node is SERVER else node for node in flow]
        fix = _fixes(time.time(), 1)[0]
        (tmp_path / "red").mkdir()
        with NodeRed(tmp_path / "red", package, flow, variables) as node_red:
            node_red.post("/fix?device=phone-1", fix)
            wait_until(lambda: "certificate" in node_red.printed(), "a refusal")
            node_red.deploy(trusting)
            wait_until(
                lambda: any(
                    isinstance(each, dict) and each["person"]["count"] == 1
                    for each in node_red.post("/out", {}).json()
                ),
                "the count",
            )


def test_a_full_queue_drops_the_oldest(tmp_path: Path, package: Path, system: System) -> None:
    """Without a connection, the newest fixes stay in the queue, and a catch node gets an error for each dropped one."""
    began_s = round(time.time() - 30, 3)
    variables = system.variables | {"HEADCOUNT_BROKER": "mqtt://127.0.0.1:1"}
    flow = _fix_flow(limit=5)
    with NodeRed(tmp_path, package, flow, variables, {"fix": system.add_device()}) as node_red:
        for fix in _fixes(began_s, 8):
            node_red.post("/fix", fix)
        wait_until(lambda: len(node_red.post("/out", {}).json()) == 3, "three errors")
        assert all("limit of 5" in text for text in node_red.post("/out", {}).json())
    lines = (tmp_path / "user" / "headcount" / "fix.queue").read_text().splitlines()
    assert [json.loads(json.loads(line)[1])["t"] for line in lines] == [
        round(began_s + n, 3) for n in range(3, 8)
    ]


def test_invalid_messages_are_errors(tmp_path: Path, package: Path, system: System) -> None:
    """A message without a fix reaches a catch node and sends nothing; a valid one is complete when it is stored."""
    with NodeRed(tmp_path, package, _fix_flow(), system.variables, {"fix": system.add_device()}) as node_red:
        node_red.post("/fix", {"latitude": 52.6})
        node_red.post("/fix", _fixes(time.time(), 1)[0] | {"more": "x" * 70_000})
        node_red.post("/fix", _fixes(time.time(), 1)[0])
        wait_until(lambda: len(node_red.post("/out", {}).json()) == 3, "two errors and a completion")
        assert sorted(node_red.post("/out", {}).json()) == [
            "Error: The fix is larger than 60 KiB",
            "Error: msg.payload has no numbers lat and lon",
            "done",
        ]


def test_counts_events_history_and_commands(tmp_path: Path, package: Path, system: System) -> None:
    """A fix gives a count and an event; history, positions and a command are answered, and errors are caught."""
    device = system.add_device()
    flow = [
        *_fix_flow(),
        _node("count", "headcount-count", "out", zone=ZONE, every=1),
        _node("event", "headcount-event", "out", zone=ZONE, change="enter"),
        *(
            part
            for name, node in {
                "counts": _node("counts", "headcount-history", "reply", query="counts", zone=ZONE, span=60),
                "positions": _node(
                    "positions", "headcount-history", "reply", query="positions", reason="test"
                ),
                "command": _node("command", "headcount-command", "reply", command="report"),
            }.items()
            for part in (
                node,
                _node(f"{name}-in", "http in", f"{name}-set", url=f"/{name}", method="post"),
                _node(f"{name}-set", "function", name, func="return { ...msg, ...msg.payload };", outputs=1),
                _node(f"{name}-catch", "catch", f"{name}-error", scope=[name], uncaught=False),
                _node(
                    f"{name}-error",
                    "function",
                    "reply",
                    func="return { ...msg, payload: { error: msg.error.message } };",
                    outputs=1,
                ),
            )
        ),
    ]
    credentials = {"fix": device, "server": {"token": "${HEADCOUNT_TOKEN}"}}
    people = system.count(ZONE, "person")
    with NodeRed(tmp_path, package, flow, system.variables, credentials) as node_red:
        wait_until(lambda: node_red.post("/out", {}).json(), "the present count")
        node_red.post("/fix", _fixes(time.time(), 1)[0])

        def found() -> bool:
            out = [each for each in node_red.post("/out", {}).json() if isinstance(each, dict)]
            counts = [each for each in out if "person" in each]
            events = [each for each in out if each.get("type") == "enter"]
            return bool(events) and counts[-1]["person"]["count"] == people + 1

        try:
            wait_until(found, "the count and the event")
        except AssertionError:
            print(node_red.post("/out", {}).text, node_red.printed())
            raise
        rows = node_red.post("/counts", {"step": 10, "span": 3600}).json()["rows"]
        assert rows == [] or {"at", "person", "vehicle"} <= rows[0].keys()
        assert node_red.post("/positions", {"zone": ZONE}).json()["precision"] == "exact"
        command = node_red.post("/command", {"device": device["device"]}).json()
        assert (command["command"], len(command["id"])) == ("report", 16)
        assert "404" in node_red.post("/command", {"device": "nobody"}).json()["error"]
        assert "Unknown zone" in node_red.post("/counts", {"zone": "nowhere"}).json()["error"]


def test_a_full_car_park_raises_one_alert(tmp_path: Path, package: Path, system: System) -> None:
    """The alert is published when the car park is full, not again while cars turn around, and cleared when it is free."""
    spaces = 4
    cars = [system.add_device("vehicle") for _ in range(spaces)]
    variables = system.variables | {"CAR_PARK": CAR_PARK, "CAR_PARK_SPACES": str(spaces)}
    credentials = {"server": {"token": "${HEADCOUNT_TOKEN}"}}
    alerts: list[dict[str, Any]] = []
    with mosquitto(tmp_path) as port:
        variables["ALERT_PORT"] = str(port)
        building = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        building.on_message = lambda _client, _data, message: alerts.append(json.loads(message.payload))
        building.connect("127.0.0.1", port)
        building.subscribe(f"car-parks/{CAR_PARK}", 1)
        building.loop_start()
        with NodeRed(tmp_path, package, EXAMPLES / "car-park-full.json", variables, credentials) as node_red:
            for car in cars:
                _drive(system, car, CAR_PARK, time.time() - 120)
            wait_until(lambda: [alert["full"] for alert in alerts] == [True], "the alert")
            for car in cars[:2]:
                _drive(system, car, ZONE, time.time())
            wait_until(lambda: [alert["full"] for alert in alerts] == [True, False], "the end of it")
            assert alerts[0]["cars"] == spaces
            assert alerts[0]["carPark"] == CAR_PARK
            assert "notification" in node_red.printed()
            assert not node_red.errors()
        building.disconnect()
        building.loop_stop()


def _drive(system: System, car: dict[str, str], zone: str, t_s: float) -> None:
    lat, lon = spot(zone)
    client = paho.Client(CallbackAPIVersion.VERSION2, car["device"], protocol=paho.MQTTv311)
    client.username_pw_set(car["device"], car["secret"])
    client.connect("127.0.0.1", system.up.mqtt_port)
    client.loop_start()
    body = json.dumps({"t": t_s, "lat": lat, "lon": lon, "acc": 3})
    client.publish(f"headcount/ul/vehicle/{car['device']}/fix", body, 1).wait_for_publish(LIMIT_S)
    client.disconnect()
    client.loop_stop()


def test_a_gateway_sends_the_older_formats(tmp_path: Path, package: Path, system: System) -> None:
    """The flow of a gateway sends phones and cars in all three ways, and all are counted."""
    gateway = system.add_device(gateway=True)
    before = {kind: system.count("site", kind) for kind in ("person", "vehicle")}
    variables = system.variables | {"HEADCOUNT_PHONES": "6", "HEADCOUNT_CARS": "3"}
    credentials = {"send-phones": gateway, "send-cars": gateway}
    with NodeRed(tmp_path, package, EXAMPLES / "gateway.json", variables, credentials) as node_red:
        wait_until(lambda: system.count("site", "person") == before["person"] + 6, "the phones", BUSY_S)
        wait_until(lambda: system.count("site", "vehicle") == before["vehicle"] + 3, "the cars", BUSY_S)
        assert not node_red.errors()

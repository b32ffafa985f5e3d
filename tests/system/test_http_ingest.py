"""Fixes over HTTP in the running system: counted, kept through kills, and repeated without harm."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import nats
import pytest

from headcount.lab.chaos.independent_reader import read_stream
from headcount.messages.fixes import Fix
from headcount.messages.times import iso
from headcount.messages.topics import FIX_STREAM, INTERNAL, partition_of
from node_red_fixture import EXAMPLES, NodeRed, package
from system.running import Up, headcount
from system.senders import spot
from waiting import LIMIT_S, wait_until

__all__ = ["package"]
pytestmark = pytest.mark.slow
LIBRARY = "glucksman-library"
INSIDE, ELSEWHERE = spot(LIBRARY), spot("concert-hall-square")


@dataclass
class Deployment:
    """A running deployment with accounts, and its administrator."""

    up: Up
    admin: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        made = headcount("token", "add", "test", "--role", "admin", *self.core, cwd=self.up.folder)
        assert made.returncode == 0, made.stderr
        headers = {"authorization": f"Bearer {made.stdout.strip()}"}
        self.admin = httpx.Client(base_url=self.base, headers=headers, trust_env=False, timeout=LIMIT_S)

    @property
    def core(self) -> list[str]:
        """The options of commands on the deployment."""
        return ["--data", str(self.up.data), "--nats-port", str(self.up.ports["nats"])]

    @property
    def base(self) -> str:
        """The address of the API."""
        return f"http://127.0.0.1:{self.up.ports['http']}"

    def device(self, kind: str = "person", **fields: Any) -> Sender:
        """Register a device."""
        answer = self.admin.post("/v1/sites/ul/devices", json={"kind": kind, **fields})
        assert answer.status_code == 201, answer.text
        found = answer.json()
        return Sender(self, found["id"], found["secret"])

    def count(self, zone: str = "site") -> tuple[int, int]:
        """People and vehicles in a zone now, exactly."""
        zones = self.admin.get("/v1/sites/ul/counts").json()["zones"]
        (found,) = (each for each in zones if each["zone"] == zone)
        return found["person"]["count"], found["vehicle"]["count"]


@dataclass
class Sender:
    """A registered device that sends over HTTP."""

    of: Deployment
    id: str
    secret: str

    def post(self, body: object = None, **options: Any) -> httpx.Response:
        """POST a JSON value, or `content` of any type."""
        content: dict[str, Any] = {} if body is None else {"json": body}
        with httpx.Client(base_url=self.of.base, trust_env=False, timeout=LIMIT_S) as http:
            return http.post("/v1/fixes", auth=(self.id, self.secret), **content, **options)

    def logged(self, kind: str = "person") -> list[float]:
        """The event times of the device's fixes in the log, in its order."""
        return [float(fix.t or fix.tst or 0) for fix in asyncio.run(self._logged(f".ul.{kind}.{self.id}"))]

    async def _logged(self, suffix: str) -> list[Fix]:
        port, password = self.of.up.ports["nats"], self.of.up.password
        client = await nats.connect(f"nats://127.0.0.1:{port}", user=INTERNAL, password=password)
        stream = FIX_STREAM.format(partition=partition_of("ul", self.id, self.of.up.partitions))
        messages = await read_stream(client, stream)
        await client.close()
        return [
            msgspec.json.decode(each.data, type=Fix) for each in messages if each.subject.endswith(suffix)
        ]

    def verdicts(self) -> list[str]:
        """The verdicts of the counting rules on its last messages."""
        path = f"/v1/sites/ul/devices/{self.id}/trace"
        answer = self.of.admin.get(path, params={"limit": 500}, headers={"headcount-reason": "a test"})
        assert answer.status_code == 200, answer.text
        return [line["verdict"] for line in answer.json()["lines"]]

    def ingest_key(self) -> str:
        """A new ingest key."""
        answer = self.of.admin.post(f"/v1/sites/ul/devices/{self.id}/ingest-key")
        assert answer.status_code == 201, answer.text
        return str(answer.json()["ingest_key"])


def fix(age_s: float = 0.0, at: tuple[float, float] = INSIDE, **fields: Any) -> dict[str, Any]:
    """A fix of some seconds ago."""
    return {"t": round(time.time() - age_s, 3), "lat": at[0], "lon": at[1], "acc": 5, **fields}


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A running system."""
    with Up(tmp_path_factory.mktemp("up"), open=False) as up:
        wait_until(up.is_ready, "counts are live")
        deployment = Deployment(up)
        with deployment.admin:
            yield deployment


def test_counts_change(deployment: Deployment) -> None:
    """A posted fix puts a person into the library, and a later one moves them out."""
    before = deployment.count(LIBRARY)[0]
    phone = deployment.device()
    answer = phone.post(fix(1))
    assert (answer.status_code, answer.json()) == (200, {"stored": 1, "fixes": [{"verdict": "stored"}]})
    wait_until(lambda: deployment.count(LIBRARY)[0] == before + 1, "the person is in the library")
    assert phone.post(fix(0, ELSEWHERE)).status_code == 200
    wait_until(lambda: deployment.count(LIBRARY)[0] == before, "the person has left")


def test_verdicts_and_problems(deployment: Deployment) -> None:
    """Some valid fixes give 207, none 422; bodies, types and credentials that are not valid have their status."""
    phone, before = deployment.device(), deployment.count(LIBRARY)[0]
    mixed = phone.post([fix(2), fix(1, (0, 0)), {"lat": 1}, fix(-120)])
    assert mixed.status_code == 207
    found = mixed.json()
    assert [each["verdict"] for each in found["fixes"]] == ["stored", "invalid", "malformed", "future"]
    assert found["stored"] == 1
    assert "lon is missing" in found["fixes"][2]["problem"]
    none = phone.post([fix(0, (91, 0)), fix(0, id="x")])
    assert (none.status_code, none.json()["type"]) == (422, "/problems/fixes-rejected")
    assert [each["parameter"] for each in none.json()["errors"]] == ["0", "1"]
    assert none.json()["errors"][1]["problem"].startswith("not_allowed: id is of another device")
    for content, media_type, status in (
        (b"{", "application/json", 400),
        (b"<xml/>", "application/xml", 415),
        (b" " * (1 << 20) + b" ", "application/json", 413),
        (json.dumps([fix()] * 1001).encode(), "application/json", 413),
    ):
        answer = phone.post(content=content, headers={"content-type": media_type})
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
    gzipped = {"content-type": "application/json", "content-encoding": "gzip"}
    assert phone.post(content=b"x", headers=gzipped).status_code == 415
    assert Sender(deployment, phone.id, "wrong").post(fix()).status_code == 401
    assert phone.post(fix(), headers={"idempotency-key": "x" * 256}).status_code == 422
    assert phone.post(fix(), params={"limit": 1}).status_code == 422
    assert len(phone.logged()) == 1
    wait_until(lambda: deployment.count(LIBRARY)[0] == before + 1, "the valid fix is counted")


def test_a_backlog_of_ten_minutes(deployment: Deployment) -> None:
    """600 fixes in one request, newest first, all count in their order; more than the burst is refused."""
    phone, before = deployment.device(), deployment.count(LIBRARY)[0]
    fixes = [fix(age_s) for age_s in range(600)]
    answer = phone.post(
        content="\n".join(map(json.dumps, fixes)), headers={"content-type": "application/x-ndjson"}
    )
    assert (answer.status_code, answer.json()["stored"]) == (200, 600)
    assert phone.logged() == sorted(each["t"] for each in fixes)
    wait_until(lambda: deployment.count(LIBRARY)[0] == before + 1, "the person is in the library")
    assert set(phone.verdicts()) == {"accepted"}
    for _ in range(2):
        assert phone.post([fix()] * 1000).status_code == 200
    limited = phone.post([fix()] * 1000)
    assert (limited.status_code, limited.json()["type"]) == (429, "/problems/too-many-requests")
    assert int(limited.headers["retry-after"]) >= 1


def test_a_repeated_request(deployment: Deployment) -> None:
    """With an Idempotency-Key a request gets the same answer again, also of a new API, and is stored once."""
    before = deployment.count(LIBRARY)[0]
    phone, body = deployment.device(), [{"lat": INSIDE[0], "lon": INSIDE[1]}, fix(0, (91, 0)), fix(5)]
    key = {"idempotency-key": "report 17"}
    first = phone.post(body, headers=key)
    assert first.status_code == 207
    assert phone.post(body, headers=key).json() == first.json()
    pid = deployment.up.kill9("api")
    wait_until(lambda: deployment.up.pids().get("api", pid) != pid and deployment.up.is_ready(), "a new API")
    assert phone.post(body, headers=key).json() == first.json()
    assert len(phone.logged()) == 2
    phone.post(body, headers={"idempotency-key": "report 18"})
    assert len(phone.logged()) == 4
    assert phone.post(body[2:], headers=key).json() == {"stored": 1, "fixes": [{"verdict": "stored"}]}
    assert len(phone.logged()) == 5
    wait_until(lambda: deployment.count(LIBRARY)[0] == before + 1, "the fixes are counted")


def test_the_older_serverless_flow(deployment: Deployment) -> None:
    """A gateway posts Base64 of named cars, as to the older decoder, and each of them is counted."""
    gateway, (people, before) = deployment.device("vehicle", gateway=True), deployment.count()
    for number in range(3):
        text = base64.b64encode(json.dumps(fix(id=f"car-{number}")).encode()).decode()
        for answer in (
            gateway.post({"payload": text}),
            gateway.post(content=text, headers={"content-type": "text/plain"}),
        ):
            assert answer.status_code == 200, deployment.up.printed()
    wait_until(lambda: deployment.count()[1] == before + 3, "three cars on site")
    person = gateway.post(fix(id="phone-1"), params={"kind": "person"})
    assert person.status_code == 200
    wait_until(lambda: deployment.count() == (people + 1, before + 3), "one more person")


@pytest.mark.parametrize("role", ["api", "broker"])
def test_kills_lose_nothing_that_was_acknowledged(deployment: Deployment, role: str) -> None:
    """While a phone sends and repeats, a kill -9 of the API or the core loses no acknowledged fix and counts none twice."""
    phone, before = deployment.device(), deployment.count(LIBRARY)[0]
    acknowledged: list[float] = []
    enough = threading.Event()
    sending = threading.Thread(target=_send_until, args=(phone, enough, acknowledged))
    sending.start()
    try:
        wait_until(lambda: len(acknowledged) >= 30, "the phone is sending")
        pid = deployment.up.kill9(role)
        wait_until(lambda: deployment.up.pids().get(role, pid) != pid, "it is started again")
        number = len(acknowledged)
        wait_until(lambda: len(acknowledged) >= number + 30, "the phone is sending again")
    finally:
        enough.set()
        sending.join(LIMIT_S)
    assert set(acknowledged) <= set(phone.logged())
    wait_until(
        lambda: deployment.up.is_ready() and deployment.count(LIBRARY)[0] == before + 1, "one more person"
    )
    assert set(phone.verdicts()) <= {"accepted", "duplicate"}


def _send_until(phone: Sender, enough: threading.Event, acknowledged: list[float]) -> None:
    """Send fixes one after the other, each until it is acknowledged."""
    while not enough.wait(0.01):
        body = fix()
        while not enough.is_set():
            try:
                answer = phone.post(body)
            except httpx.TransportError:
                time.sleep(0.05)
                continue
            if answer.status_code == 200:
                acknowledged.append(body["t"])
                break
            assert (answer.status_code, "retry-after" in answer.headers) == (503, True), answer.text


def test_traccar_and_osmand(deployment: Deployment) -> None:
    """All generations of the apps send with an ingest key, which can do nothing else and can be revoked."""
    phone, before = deployment.device(), deployment.count(LIBRARY)[0]
    key, at = phone.ingest_key(), {"lat": str(INSIDE[0]), "lon": str(INSIDE[1])}
    with httpx.Client(base_url=deployment.base, trust_env=False, timeout=LIMIT_S) as http:

        def send(method: str, *, verdict: str = "stored", **options: Any) -> None:
            answer = http.request(method, "/v1/osmand", **options)
            assert (answer.status_code, answer.content) == (200, b""), answer.text
            assert answer.headers["headcount-verdict"] == verdict

        query = {"id": key, **at, "speed": "0.0", "bearing": "0.0", "accuracy": "5.0", "batt": "71.0"}
        send("POST", params=query | {"timestamp": str(int(time.time()) - 4)})
        send("POST", data=query | {"timestamp": str(int(time.time()) - 3)})
        send("GET", params=query | {"timestamp": str(int(1000 * time.time()) - 2000), "unknown": "x"})
        coords = {"latitude": INSIDE[0], "longitude": INSIDE[1], "accuracy": 5, "speed": -1, "heading": -1}
        location = {"timestamp": iso(time.time() - 1), "coords": coords, "battery": {"level": 0.71}}
        send("POST", json={"location": location, "device_id": key})
        wait_until(lambda: deployment.count(LIBRARY)[0] == before + 1, "the person is in the library")
        assert phone.verdicts() == ["accepted"] * 4
        # a fix that can never be stored must not make the app repeat it for ever
        send("GET", params=query | {"lat": "91"}, verdict="invalid")
        send("GET", params=query | {"timestamp": str(int(time.time()) + 600)}, verdict="future")
        send("GET", params={"id": key, "alarm": "sos"}, verdict="ignored")
        assert len(phone.logged()) == 4
        # the key is for nothing else
        basic = (phone.id, key.partition("-")[2])
        assert http.get("/v1/me", auth=basic).status_code == 401
        assert http.post("/v1/fixes", json=fix(), auth=basic).status_code == 401
        newer = phone.ingest_key()
        for wrong in (key, "12345678", f"{phone.id}-{phone.secret}", newer[:-1] + "!"):
            answer = http.get("/v1/osmand", params=query | {"id": wrong})
            assert (answer.status_code, answer.json()["type"]) == (400, "/problems/unknown-ingest-key")
        send("GET", params=query | {"id": newer.upper(), "timestamp": str(int(time.time()))})
        path = f"/v1/sites/ul/devices/{phone.id}"
        assert deployment.admin.delete(f"{path}/ingest-key").status_code == 204
        assert http.get("/v1/osmand", params=query | {"id": newer}).status_code == 400
        rotated = phone.ingest_key()
        assert deployment.admin.post(f"{path}/rotate").status_code == 200
        assert http.get("/v1/osmand", params=query | {"id": rotated}).status_code == 400
        logs = deployment.up.output.read_text()
        assert not any(secret.partition("-")[2] in logs for secret in (key, newer, rotated))


def test_no_answer_of_the_core_is_temporary(deployment: Deployment) -> None:
    """While the core does not answer, apps and devices get 503 with Retry-After, and keep their fixes."""
    phone = deployment.device()
    key = phone.ingest_key()
    deployment.up.signal("broker", signal.SIGSTOP)
    try:
        answers = [phone.post(fix())]
        address = f"{deployment.base}/v1/osmand"
        query = {"id": key, "lat": str(INSIDE[0]), "lon": str(INSIDE[1])}
        answers.append(httpx.get(address, params=query, timeout=LIMIT_S, trust_env=False))
    finally:
        deployment.up.signal("broker", signal.SIGCONT)
    for answer in answers:
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
    wait_until(lambda: phone.post(fix()).status_code == 200, "the core answers again")


@pytest.mark.doors
def test_an_older_flow_in_node_red(tmp_path: Path, package: Path, deployment: Deployment) -> None:
    """A flow that posted Base64 to a serverless decoder is counted after a change of the address in its HTTP node."""
    gateway, before = deployment.device("vehicle", gateway=True), deployment.count()[1]
    address = f"{gateway.id}:{gateway.secret}@127.0.0.1:{deployment.up.ports['http']}"
    variables = {"HEADCOUNT_FIXES": f"http://{address}/v1/fixes?kind=vehicle"}
    with NodeRed(tmp_path, package, EXAMPLES / "http-node.json", variables) as node_red:
        print("Node-RED", node_red.version())
        wait_until(lambda: deployment.count()[1] == before + 3, "three more cars on site")
        assert not node_red.errors()
        assert "problem" not in node_red.printed()

"""The registry over HTTP, and credentials in exchange for a code, against a real server."""

from __future__ import annotations

import asyncio
import base64
import csv
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
import pytest
import segno

from headcount.api.routes.devices import MAX_IMPORTED
from headcount.api.schemas import devices, provisioning
from headcount.devices import credentials
from headcount.devices.provisioning import qr_svg
from headcount.messages.records import AccessRole
from headcount.messages.topics import HANDLE
from person_fixture import People, open_people
from waiting import until

DEVICES = "/v1/sites/ul/devices"


class RegistryApi:
    """An operator before the API."""

    def __init__(self, people: People, headers: dict[str, str]) -> None:
        """Sign in with these headers."""
        self.people, self.headers = people, headers
        self.http = people.api.http

    async def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A request of the operator."""
        return await self.http.request(method, path, headers=self.headers, **options)

    async def call(self, method: str, path: str, **options: Any) -> Any:
        """The JSON of a request that is granted."""
        answer = await self.ask(method, path, **options)
        assert answer.is_success, answer.text
        return answer.json()

    async def refused(self, status: int, problem: str, method: str, path: str, **options: Any) -> str:
        """The detail of a request that is refused in this way."""
        answer = await self.ask(method, path, **options)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == f"/problems/{problem}"
        return str(answer.json()["detail"])

    async def labels(self, query: str = "") -> list[str]:
        """The labels that the list has now."""
        return [each["label"] for each in (await self.call("GET", f"{DEVICES}?{query}"))["devices"]]


@asynccontextmanager
async def open_registry(
    folder: Path, role: AccessRole = "operator", **limits: Any
) -> AsyncIterator[RegistryApi]:
    """An API with accounts, and a token for it."""
    async with open_people(folder, **limits) as people:
        api = RegistryApi(people, await people.token(role))

        async def ready() -> bool:
            return (await api.ask("GET", DEVICES)).status_code != 503

        await until(ready)
        yield api


async def test_a_device_from_its_registration_to_its_end(tmp_path: Path) -> None:
    """It is added, shown, changed, paused, rotated and removed; its secret is returned twice and never shown."""
    async with open_registry(tmp_path) as api:
        answer = await api.ask("POST", DEVICES, json={"kind": "person", "label": "Ada", "groups": ["staff"]})
        assert answer.status_code == 201
        added = answer.json()
        devices.DeviceWithSecretResponse.model_validate(added)
        path = f"{DEVICES}/{added['id']}"
        assert answer.headers["location"] == path
        assert HANDLE.fullmatch(added["id"])
        shown = await api.call("GET", path)
        devices.DeviceResponse.model_validate(shown)
        assert shown["label"] == "Ada"
        assert added["secret"] not in str(shown)
        changed = await api.call("PATCH", path, json={"label": "Ada L.", "aliases": ["iotp/1"]})
        assert (changed["label"], changed["groups"]) == ("Ada L.", ["staff"])
        paused = await api.call("PATCH", path, json={"status": "paused", "resume": "2099-01-01T00:00:00Z"})
        assert (paused["status"], paused["resume"]) == ("paused", "2099-01-01T00:00:00.000Z")
        active = await api.call("PATCH", path, json={"status": "active"})
        assert (active["status"], active["resume"]) == ("active", None)
        rotated = await api.call("POST", f"{path}/rotate")
        kept = await api.people.api.services.registry.get(added["id"])
        assert kept is not None
        assert credentials.verify_secret(rotated["secret"], kept.secret)
        assert not credentials.verify_secret(added["secret"], kept.secret)
        removed = await api.call("DELETE", path)
        assert (removed["status"], removed["label"]) == ("erasing", "")
        await api.refused(404, "unknown-device", "GET", path)
        await api.refused(404, "unknown-device", "DELETE", path)
        entries, _ = await api.people.api.services.audit_log.entries(action="device")
        actions = [entry.action for entry in reversed(entries)]
        assert actions == [f"device.{name}" for name in ("add", *["change"] * 3, "rotate", "remove")]
        assert not [word for word in (added["id"], "Ada", "iotp/1") if word in str(entries)]
        assert len({entry.subject for entry in entries}) == 1


async def test_the_key_of_a_device_is_returned_once(tmp_path: Path) -> None:
    """A key is returned when it is created and stored sealed; a link with `encrypt` replaces it."""
    async with open_registry(tmp_path) as api:
        path = f"{DEVICES}/{(await api.call('POST', DEVICES, json={'kind': 'person'}))['id']}"
        made = await api.call("POST", f"{path}/key")
        devices.PayloadKeyResponse.model_validate(made)
        registry = api.people.api.services.registry
        stored = await registry.get(made["device"])
        assert stored is not None
        assert made["key"] not in str(stored)
        shown = await api.call("GET", path)
        assert shown["encrypted"]
        assert stored.payload_key not in str(shown)
        assert (await api.ask("DELETE", f"{path}/key")).status_code == 204
        assert not (await api.call("GET", path))["encrypted"]
        options = {"encrypt": True, "commands": True, "http": True}
        link = await api.call("POST", f"{path}/link", json={"owntracks": options})
        app = await api.call("GET", f"/v1/provision/{link['code'].replace('-', '')}.otrc")
        assert (app["mode"], app["cmd"], len(app["encryptionKey"])) == (3, True, 32)
        after = await registry.get(made["device"])
        assert after is not None
        assert after.app == "OwnTracks"
        entries, _ = await api.people.api.services.audit_log.entries(action="device.key")
        assert [entry.detail["encrypted"] for entry in entries] == [False, True]
        assert not [word for word in (made["key"], app["encryptionKey"]) if word in str(entries)]


async def test_the_list_is_filtered_and_paged(tmp_path: Path) -> None:
    """Pages follow each other, filters narrow them, and a change shows soon."""
    async with open_registry(tmp_path) as api:
        for n in range(5):
            body = {"kind": "vehicle" if n == 4 else "person", "label": f"D{n}", "groups": [f"g{n % 2}"]}
            await api.call("POST", DEVICES, json=body)

        async def all_there() -> bool:
            return len(await api.labels()) == 5

        await until(all_there)
        first = await api.call("GET", f"{DEVICES}?limit=3")
        devices.DeviceListResponse.model_validate(first)
        second = await api.call("GET", f"{DEVICES}?limit=3&after={first['after']}")
        assert second["after"] is None
        ids = [each["id"] for each in first["devices"] + second["devices"]]
        assert ids == sorted(ids)
        assert len(ids) == 5
        assert await api.labels("kind=vehicle") == ["D4"]
        assert sorted(await api.labels("group=g1")) == ["D1", "D3"]
        assert await api.labels("text=d2") == ["D2"]
        assert await api.labels("status=disabled") == []
        for query in ("limit=501", "limit=0", "after=x", "kind=cat", "group=a%20b", f"text={'x' * 101}"):
            await api.refused(422, "invalid-parameter", "GET", f"{DEVICES}?{query}")
        await api.refused(404, "unknown-site", "GET", "/v1/sites/moon/devices")


async def test_what_is_no_device_is_refused(tmp_path: Path) -> None:
    """Wrong bodies are 422 with the field's name, an alias of another device is 409, and nothing is registered."""
    async with open_registry(tmp_path) as api:
        added = await api.call("POST", DEVICES, json={"kind": "person", "aliases": ["iotp/1"]})
        for body in (
            {},
            {"kind": "cat"},
            {"kind": "person", "id": "mine"},
            {"kind": "person", "secret": "mine"},
            {"kind": "person", "label": "x" * 101},
            {"kind": "person", "label": "a\nb"},
            {"kind": "person", "groups": ["a b"]},
            {"kind": "person", "groups": "staff"},
            {"kind": "person", "aliases": ["x"] * 11},
            {"kind": "person", "aliases": ["jane/phone"]},
        ):
            await api.refused(422, "invalid-parameter", "POST", DEVICES, json=body)
        await api.refused(409, "alias-taken", "POST", DEVICES, json={"kind": "person", "aliases": ["iotp/1"]})
        path = f"{DEVICES}/{added['id']}"
        for body in (
            {"status": "erasing"},
            {"resume": "2099-01-01T00:00:00Z"},
            {"status": "paused", "resume": "2001-01-01T00:00:00Z"},
            {"certificate": "xy"},
            {"kind": "vehicle"},
        ):
            await api.refused(422, "invalid-parameter", "PATCH", path, json=body)
        await api.refused(404, "unknown-device", "GET", f"{DEVICES}/{'a' * 20}")
        await api.refused(422, "invalid-parameter", "GET", f"{DEVICES}/someone")
        assert set(await api.people.api.services.registry.all()) == {added["id"]}


async def test_a_table_goes_in_and_out(tmp_path: Path) -> None:
    """An import gives secrets once and registers all rows or none; the export has every device."""
    async with open_registry(tmp_path) as api:
        text = "kind,label,groups\r\nperson,=1+1,staff;night\r\nvehicle,Van,\r\n"
        answer = await api.ask("POST", f"{DEVICES}.csv", content=text)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        given = list(csv.DictReader(io.StringIO(answer.text)))
        assert [row["label"] for row in given] == ["'=1+1", "Van"]
        for row in given:
            kept = await api.people.api.services.registry.get(row["id"])
            assert kept is not None
            assert credentials.verify_secret(row["secret"], kept.secret)

        async def both_there() -> bool:
            return len((await api.ask("GET", f"{DEVICES}.csv")).text.splitlines()) == 3

        await until(both_there)
        table = (await api.ask("GET", f"{DEVICES}.csv")).text
        rows = {row["id"]: row for row in csv.DictReader(io.StringIO(table))}
        assert set(rows) == {row["id"] for row in given}
        assert rows[given[0]["id"]]["groups"] == "staff;night"
        assert "$7$" not in table
        detail = await api.refused(
            422, "invalid-parameter", "POST", f"{DEVICES}.csv", content="kind\nperson\ncat\n"
        )
        assert "line 3" in detail
        await api.refused(422, "invalid-parameter", "POST", f"{DEVICES}.csv", content=b"\xff\xfe")
        table = "kind,label\nperson,Zoë\n"
        detail = await api.refused(
            422, "invalid-parameter", "POST", f"{DEVICES}.csv", content=table.encode("cp1252")
        )
        assert "line 2 is 'person,Zoë' in Windows-1252" in detail
        assert (await api.ask("POST", f"{DEVICES}.csv", content=table.encode("utf-16"))).status_code == 200
        long = "kind\n" + "person\n" * (MAX_IMPORTED + 1)
        await api.refused(422, "invalid-parameter", "POST", f"{DEVICES}.csv", content=long)
        await api.refused(413, "too-long", "POST", f"{DEVICES}.csv", content=b"x" * (17 << 20))
        assert len(await api.people.api.services.registry.all()) == 3


async def test_a_link_works_once_over_http(tmp_path: Path) -> None:
    """Of thirty who open a link at the same moment, in either way, one gets credentials that work."""
    async with open_registry(tmp_path, mqtt_port=1899, ws_port=9099) as api:
        added = await api.call("POST", DEVICES, json={"kind": "person", "label": "Ada"})
        link = await api.call("POST", f"{DEVICES}/{added['id']}/link", json={"within_s": 600})
        devices.LinkResponse.model_validate(link)
        assert link["owntracks"]["qr_svg"] == qr_svg(link["owntracks"]["link"])
        file = unquote(link["owntracks"]["link"].removeprefix("owntracks:///config?url="))
        assert file == f"{api.people.api.base}/v1/provision/{link['code']}.otrc"
        assert link["page"]["link"] == f"{api.people.api.base}/me#join={link['code']}"
        async with httpx.AsyncClient(base_url=api.people.api.base, trust_env=False, timeout=60) as anybody:
            asking = [anybody.post("/v1/provision", json={"code": link["code"]}) for _ in range(15)]
            asking += [anybody.get(file) for _ in range(15)]
            answers = await asyncio.gather(*asking)
        good = [answer for answer in answers if answer.status_code == 200]
        assert len(good) == 1
        assert {answer.status_code for answer in answers if answer is not good[0]} <= {404, 429}
        answer = good[0].json()
        secret = answer.get("secret") or answer["password"]
        kept = await api.people.api.services.registry.get(added["id"])
        assert kept is not None
        assert credentials.verify_secret(secret, kept.secret)
        assert link["code"] not in str(await api.people.api.services.registry.all())


async def test_the_settings_of_a_phone(tmp_path: Path) -> None:
    """Both endpoints return user, password and the broker's address: on the host of the request."""
    async with open_registry(tmp_path, mqtt_port=1899, ws_port=9099) as api:
        added = await api.call("POST", DEVICES, json={"kind": "person"})
        first = await api.call("POST", f"{DEVICES}/{added['id']}/link")
        answer = (await api.http.post("/v1/provision", json={"code": first["code"]})).json()
        provisioning.CredentialsResponse.model_validate(answer)
        assert answer["device"] == added["id"]
        assert answer["topic"] == f"headcount/ul/person/{added['id']}"
        assert answer["mqtt"] == {"host": "127.0.0.1", "port": 1899, "tls": False}
        assert answer["websocket"] == "ws://127.0.0.1:9099/mqtt"
        inline = parse_qs(urlsplit(answer["owntracks"]).query)["inline"][0]
        app = json.loads(base64.b64decode(inline))
        assert (app["username"], app["password"]) == (answer["device"], answer["secret"])
        second = await api.call("POST", f"{DEVICES}/{added['id']}/link")
        head = {"host": "count.example.org"}
        answer = await api.http.get(f"/v1/provision/{second['code']}.otrc", headers=head)
        assert answer.headers["content-disposition"] == 'attachment; filename="headcount.otrc"'
        assert "no-store" in answer.headers["cache-control"]
        app = answer.json()
        provisioning.OwnTracksResponse.model_validate(app)
        assert (app["_type"], app["mode"], app["host"], app["port"]) == (
            "configuration",
            0,
            "count.example.org",
            1899,
        )
        assert app["username"] == app["clientId"] == added["id"]
        assert app["pubTopicBase"] == f"owntracks/{added['id']}/phone"
        assert app["pubRetain"] is False


async def test_claim_codes_make_devices(tmp_path: Path) -> None:
    """A table of codes; each registers one device of the kind and groups, and then no more."""
    async with open_registry(tmp_path, https=True, public_url="https://count.example.org") as api:
        body = {"kind": "vehicle", "count": 3, "groups": ["fleet"]}
        answer = await api.ask("POST", "/v1/sites/ul/claims", json=body)
        assert answer.status_code == 200, answer.text
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        assert len({row["code"] for row in rows}) == 3
        assert rows[0]["page"].startswith("https://count.example.org/me#join=")
        assert urlsplit(rows[0]["page"]).fragment == f"join={rows[0]['code'].replace('-', '')}"
        answer = (await api.http.post("/v1/provision", json={"code": rows[0]["code"].upper()})).json()
        assert (answer["kind"], answer["mqtt"]["tls"]) == ("vehicle", True)
        assert answer["websocket"].startswith("wss://count.example.org:")
        made = await api.people.api.services.registry.get(answer["device"])
        assert made is not None
        assert made.groups == ["fleet"]
        again = await api.http.post("/v1/provision", json={"code": rows[0]["code"]})
        assert again.status_code == 404
        assert again.json()["type"] == "/problems/link-refused"
        for count in (0, 10_001):
            wish = {"kind": "person", "count": count}
            await api.refused(422, "invalid-parameter", "POST", "/v1/sites/ul/claims", json=wish)


@pytest.mark.usefixtures("no_refill")
async def test_guessing_codes_is_rate_limited(tmp_path: Path) -> None:
    """After twenty wrong codes an address gets 429 for more, while a right one still works from there."""
    async with open_registry(tmp_path) as api:
        rows = (await api.ask("POST", "/v1/sites/ul/claims", json={"kind": "person", "count": 1})).text
        code = next(csv.DictReader(io.StringIO(rows)))["code"]
        statuses = []
        for n in range(24):
            answer = await api.http.post("/v1/provision", json={"code": f"{'a' * 15}{'abcdefgh'[n % 8]}"})
            statuses.append(answer.status_code)
        assert statuses == [404] * 20 + [429] * 4
        assert int((await api.http.get("/v1/provision/x.otrc")).headers["retry-after"]) >= 1
        assert (await api.http.post("/v1/provision", json={"code": code})).status_code == 200


async def test_only_operators_see_and_change_the_registry(tmp_path: Path) -> None:
    """Without the scope every endpoint of the registry refuses, and there is nothing to be learnt."""
    async with open_registry(tmp_path, "viewer") as api:
        added, _ = await api.people.api.services.registry.add("ul", "person", label="Ada")
        path = f"{DEVICES}/{added.id}"
        for method, where in (
            ("GET", DEVICES),
            ("POST", DEVICES),
            ("GET", f"{DEVICES}.csv"),
            ("POST", f"{DEVICES}.csv"),
            ("POST", "/v1/sites/ul/claims"),
            ("GET", path),
            ("PATCH", path),
            ("DELETE", path),
            ("POST", f"{path}/rotate"),
            ("POST", f"{path}/link"),
        ):
            answer = await api.ask(method, where, json={"kind": "person", "count": 1})
            assert answer.status_code in (401, 403), (method, where)
            assert "Ada" not in answer.text
            nobody = await api.http.request(method, where, json={"kind": "person", "count": 1})
            assert nobody.status_code == 401, (method, where)


def test_a_qr_code_holds_the_link() -> None:
    """The modules of the code are those that the link gives, whole and at the wanted strength."""
    link = f"owntracks:///config?url=https%3A%2F%2Fcount.example.org%2Fv1%2Fprovision%2F{'a' * 32}.otrc"
    svg = qr_svg(link)
    code = segno.make(link, error="m", micro=False)
    assert svg.startswith("<svg")
    assert f'width="{code.symbol_size(5, 4)[0]}"' in svg
    drawn = io.BytesIO()
    code.save(drawn, kind="svg", scale=5, border=4, xmldecl=False)
    assert drawn.getvalue().decode().strip() == svg

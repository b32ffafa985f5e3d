"""A person's own data: only by the device's own credentials; seen, exported, paused, erased."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

import history_batches
from headcount.api.schemas import me
from headcount.api.schemas.traces import TraceResponse
from headcount.devices import credentials
from headcount.devices.pseudonym_keys import PseudonymKeys
from headcount.messages.times import iso
from headcount.messaging.connection import Connection
from person_fixture import LIBRARY, OUTSIDE, People, Phone, open_people

SECRETS = ("secret", "$7$")


async def test_seen_by_itself_only(tmp_path: Path) -> None:
    """With id and secret, or a signed token, a device sees itself; other credentials are rejected."""
    async with open_people(tmp_path) as people:
        ada = await people.phone(label="Ada's phone", groups=["staff"])
        bob = await people.phone(label="Bob")
        await people.worker(
            ada,
            {"present": True, "zones": ["library", "site"], "last_t": 1_790_000_000.0, "lat": 52.6}
            | {"lon": -8.5, "acc": 8.0, "offline": False, "last_verdict": "accepted"},
        )
        answer = await people.ask(ada, "GET", "/v1/me")
        found = me.MeResponse.model_validate(answer.json())
        assert (found.device, found.label, found.groups) == (ada.id, "Ada's phone", ["staff"])
        assert found.zones == ["library", "site"]
        assert found.last is not None
        assert found.last["verdict"] == "accepted"
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["cache-control"] in ("no-store", "private, no-store")
        key = credentials.token_key(people.api.settings.secret)
        now_s = time.time()
        signed = credentials.sign_token(key, ada.id, now_s + 60, now_s)
        assert (await people.ask(ada, "GET", "/v1/me", headers=ada.headers(signed))).status_code == 200
        other = credentials.sign_token(key, bob.id, now_s + 60, now_s)
        await people.api.services.registry.rotate(bob.id)
        operator = await people.token("admin")
        for headers in (
            ada.headers(bob.secret),
            ada.headers(other),
            bob.headers(),
            bob.headers(other),
            ada.headers("x" * 3000),
            {"authorization": "Basic !!!"},
            {"authorization": "Basic"},
            operator,
        ):
            answer = await people.ask(ada, "GET", "/v1/me", headers=headers)
            assert answer.status_code == 401, headers
            assert answer.json()["type"] == "/problems/device-sign-in"
            assert "basic" not in answer.headers["www-authenticate"].lower()
        cookie = {"cookie": f"headcount={ada.secret}"}
        assert (await people.api.get("/v1/me", headers=cookie)).status_code == 401


async def test_old_tokens_end_with_a_new_secret(tmp_path: Path) -> None:
    """A token that was signed before the secret was replaced is refused, and so is the old secret."""
    async with open_people(tmp_path) as people:
        ada, now_s = await people.phone(), time.time()
        key = credentials.token_key(people.api.settings.secret)
        old = credentials.sign_token(key, ada.id, now_s + 600, now_s - 10)
        assert (await people.ask(ada, "GET", "/v1/me", headers=ada.headers(old))).status_code == 200
        await people.api.services.registry.rotate(ada.id)
        assert (await people.ask(ada, "GET", "/v1/me", headers=ada.headers(old))).status_code == 401
        assert (await people.ask(ada, "GET", "/v1/me")).status_code == 401


@pytest.mark.usefixtures("no_refill")
async def test_guessing_is_rate_limited(tmp_path: Path) -> None:
    """After some failures as a device an address gets 429 for more, while the right secret still works from there."""
    async with open_people(tmp_path) as people:
        ada, bob = await people.phone(), await people.phone()
        codes = [
            (await people.ask(ada, "GET", "/v1/me", headers=ada.headers("no"))).status_code for _ in range(30)
        ]
        assert codes == [401] * 20 + [429] * 10
        answer = await people.ask(ada, "GET", "/v1/me", headers=ada.headers("no"))
        assert int(answer.headers["retry-after"]) >= 1
        assert (await people.ask(ada, "GET", "/v1/me")).status_code == 200
        assert (await people.ask(bob, "GET", "/v1/me")).status_code == 200


async def test_another_sites_page_can_do_nothing(tmp_path: Path) -> None:
    """A page of another origin is refused, whatever the browser sends; our own isn't."""
    async with open_people(tmp_path) as people:
        ada = await people.phone()
        foreign, ours = {"origin": "https://elsewhere.example"}, {"origin": people.api.base}
        for method, path in (("POST", "pause"), ("POST", "resume"), ("GET", "export"), ("DELETE", "")):
            answer = await people.ask(ada, method, f"/v1/me/{path}".rstrip("/"), headers=foreign)
            assert answer.json()["type"] == "/problems/cross-site"
        assert (await people.ask(ada, "POST", "/v1/me/pause", headers=ours)).status_code == 200


async def test_export(tmp_path: Path) -> None:
    """Everything of the device is in the export, nothing of another one, and no secret."""
    async with open_people(tmp_path) as people:
        ada, bob = await people.phone(label="Ada's phone"), await people.phone(label="Bob's phone")
        now_s = time.time()
        await people.fix(ada, now_s - 20, *LIBRARY, acc=8.0)
        await people.fix(ada, now_s - 10, *LIBRARY, acc=250.0)
        await people.fix(bob, now_s - 10, *LIBRARY, acc=8.0)
        store(tmp_path, people, ada, await names(people, ada), now_s - 3000)
        store(tmp_path, people, bob, await names(people, bob), now_s - 2000)
        await people.api.services.command_store.add(
            "ul", "person", ada.id, "message", now_s=now_s, text="hello"
        )
        headers = await people.token("operator") | {"headcount-reason": "ticket 12"}
        path = f"/v1/sites/ul/devices/{ada.id}/trace"
        assert (await people.api.get(path, headers=headers)).status_code == 200
        answer = await people.ask(ada, "GET", "/v1/me/export")
        assert answer.headers["content-disposition"].startswith("attachment")
        found = answer.json()
        document = (await people.api.get("/openapi.json")).json()
        responses = document["paths"]["/v1/me/export"]["get"]["responses"]
        assert found.keys() == responses["200"]["content"]["application/json"]["example"].keys()
        assert found["registry"]["label"] == "Ada's phone"
        assert [m["payload"]["acc"] for m in found["log"]["messages"]] == [8.0, 250.0]
        assert [(f["lat"], f["verdict"]) for f in found["history"]] == [(52.6725, "accepted")]
        recent = [(f["t"], f["lat"], f["acc"], f["verdict"]) for f in found["recent_fixes"]]
        assert [each[1:] for each in recent] == [(52.6725, 8.0, "accepted"), (52.6725, 250.0, recent[1][3])]
        assert recent[1][3] not in (None, "accepted")
        assert {m["zone"] for m in found["memberships"]} >= {"site", "library"}
        assert [c["text"] for c in found["commands"]] == ["hello"]
        assert [look["reason"] for look in found["looks"]] == ["ticket 12"]
        assert bob.id not in answer.text
        assert "Bob" not in answer.text
        assert ada.secret not in answer.text
        assert not any(word in answer.text for word in SECRETS)
        [last, *_], _ = await people.api.services.audit_log.entries(action="person")
        assert (last.action, last.actor) == ("person.export", "the device itself")
        assert ada.id not in json.dumps([last.subject, last.detail])


async def test_accesses_are_found_among_any_number_of_others(tmp_path: Path) -> None:
    """An access to a device's positions stays on its page, whatever others read afterwards."""
    async with open_people(tmp_path) as people:
        ada, bob = await people.phone(), await people.phone()
        headers = await people.token("operator") | {"headcount-reason": "ticket 12"}
        for phone in (ada, bob):
            await people.fix(phone, time.time(), *LIBRARY)
            path = f"/v1/sites/ul/devices/{phone.id}/trace"
            assert (await people.api.get(path, headers=headers)).status_code == 200
        log = people.api.services.audit_log
        (newest, *_), _ = await log.entries(action="positions.trace")
        for n in range(2100):
            await log.record(
                "positions.read" if n % 2 else "positions.trace", "x", newest.subject if n % 3 else ""
            )
        found = (await people.ask(ada, "GET", "/v1/me")).json()["looks"]
        assert [(look["action"], look["reason"]) for look in found] == [("positions.trace", "ticket 12")]
        assert (await log.verify()).intact


async def names(people: People, phone: Phone) -> dict[int, str]:
    """The pseudonyms of a device."""
    keys = PseudonymKeys(Connection(people.api.nats))
    return await keys.pseudonyms_of("ul", "person", phone.id)


def store(folder: Path, people: People, phone: Phone, known: dict[int, str], t_s: float) -> None:
    """A fix of a device, in the history."""
    del people, phone
    name = known[int(t_s // 86_400)] if int(t_s // 86_400) in known else min(known.items())[1]
    row = history_batches.Row(1, t_s, t_s, name, "person", *LIBRARY, 5.0, "accepted")
    data = folder / "data"
    data.mkdir(exist_ok=True)
    history_batches.write(data, history_batches.batch(rows=[row]), now_s=time.time())


async def test_trace_of_oneself(tmp_path: Path) -> None:
    """A device sees why it is counted without giving a reason."""
    async with open_people(tmp_path) as people:
        ada = await people.phone()
        await people.fix(ada, time.time() - 20, *OUTSIDE, acc=8.0)
        found = TraceResponse.model_validate((await people.ask(ada, "GET", "/v1/me/trace")).json())
        assert [line.verdict for line in found.lines] == ["outside"]


async def test_pause_and_resume(tmp_path: Path) -> None:
    """A pause stands in the registry, with its end where one is given, until it is resumed."""
    async with open_people(tmp_path) as people:
        ada = await people.phone()
        answer = await people.ask(ada, "POST", "/v1/me/pause")
        assert answer.json() == {"status": "paused", "resume": None}
        device = await people.api.services.registry.get(ada.id)
        assert device is not None
        assert device.status == "paused"
        # the worker's answer may be older than the pause
        await people.worker(
            ada,
            {"present": True, "zones": ["library", "site"], "last_t": 1_790_000_000.0, "lat": 52.6}
            | {"lon": -8.5, "acc": 8.0, "offline": False, "last_verdict": "accepted"},
        )
        assert (await people.ask(ada, "GET", "/v1/me")).json()["zones"] == []
        answer = await people.ask(ada, "POST", "/v1/me/resume")
        assert answer.json() == {"status": "active", "resume": None}
        answer = await people.ask(ada, "POST", "/v1/me/pause", json={"for_s": 3600})
        assert answer.json()["status"] == "paused"
        until = iso(round(time.time()) + 7200)
        answer = await people.ask(ada, "POST", "/v1/me/pause", json={"until": until})
        assert answer.json()["resume"] == until
        assert (await people.ask(ada, "GET", "/v1/me")).json()["resume"] == until
        for body in (
            {"for_s": 0},
            {"for_s": 1e9},
            {"until": "yesterday"},
            {"until": iso(time.time() - 60)},
            {"until": until, "for_s": 60},
            {"forever": True},
            "x",
        ):
            answer = await people.ask(ada, "POST", "/v1/me/pause", json=body)
            assert answer.status_code == 422, body
        entries, _ = await people.api.services.audit_log.entries(action="person")
        assert [entry.action for entry in entries][:2] == ["person.pause", "person.pause"]


async def test_erase(tmp_path: Path) -> None:
    """Erasing answers immediately; from then on the credentials are rejected, and names are erased."""
    async with open_people(tmp_path) as people:
        ada = await people.phone(label="Ada's phone")
        answer = await people.ask(ada, "DELETE", "/v1/me")
        assert answer.status_code == 202
        me.ErasureResponse.model_validate(answer.json())
        assert (await people.ask(ada, "GET", "/v1/me")).status_code == 401
        device = await people.api.services.registry.get(ada.id)
        assert device is not None
        assert (device.status, device.label, device.secret) == ("erasing", "", "")


async def test_the_data_of_a_removed_site_can_be_exported_and_erased(tmp_path: Path) -> None:
    """The owner of a device whose site is no longer counted still sees, exports and erases what is stored."""
    async with open_people(tmp_path) as people:
        ada = Phone(*await people.api.services.registry.add("gone", "person", label="Ada's phone"))
        seen = (await people.ask(ada, "GET", "/v1/me")).json()
        assert (seen["site"], seen["zones"], seen["last"]) == ("gone", [], None)
        exported = (await people.ask(ada, "GET", "/v1/me/export")).json()
        assert (exported["registry"]["label"], exported["now"]) == ("Ada's phone", None)
        assert (await people.ask(ada, "GET", "/v1/me/trace")).json()["lines"] == []
        assert (await people.ask(ada, "DELETE", "/v1/me")).status_code == 202


async def test_the_disabled_see_nothing(tmp_path: Path) -> None:
    """Credentials of a disabled device may be in the wrong hands."""
    async with open_people(tmp_path) as people:
        ada = await people.phone()
        await people.api.services.registry.change(ada.id, status="disabled")
        assert (await people.ask(ada, "GET", "/v1/me")).status_code == 401


@pytest.mark.parametrize("path", ["/v1/me", "/v1/me/export", "/v1/me/trace"])
async def test_without_credentials(tmp_path: Path, path: str) -> None:
    """Without credentials there is nothing, even where everything is open."""
    async with open_people(tmp_path, open=True) as people:
        answer = await people.api.get(path)
        assert answer.status_code == 401

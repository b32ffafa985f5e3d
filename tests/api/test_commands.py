"""Commands and traces over HTTP: who may, what is refused, what is written down."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from headcount.api.schemas.commands import CommandListResponse, CommandResponse
from headcount.api.schemas.traces import TraceResponse
from person_fixture import LIBRARY, open_people

REASON = {"headcount-reason": "why is this phone not counted, ticket 12"}


async def test_given_seen_withdrawn(tmp_path: Path) -> None:
    """A command is given, listed, looked at and withdrawn; the audit log has the device by pseudonym only."""
    async with open_people(tmp_path) as people:
        phone, http = await people.phone(), people.api.http
        path, operator = f"/v1/sites/ul/devices/{phone.id}/commands", await people.token("operator")
        for body in (
            {"command": "interval", "interval_s": 30},
            {"command": "report"},
            {"command": "pause", "pause_s": 3600},
            {"command": "message", "text": "please charge", "expires_s": 600},
        ):
            answer = await http.post(path, json=body, headers=operator)
            assert answer.status_code == 201, answer.text
            assert CommandResponse.model_validate(answer.json()).state == "queued"
        found = (await http.get(path, headers=operator)).json()
        commands = CommandListResponse.model_validate(found).commands
        assert [each.command for each in commands] == ["message", "pause", "report", "interval"]
        one = f"{path}/{commands[0].id}"
        assert (await http.get(one, headers=operator)).json() == found["commands"][0]
        assert (await http.delete(one, headers=operator)).status_code == 204
        for method in ("GET", "DELETE"):
            answer = await http.request(method, one, headers=operator)
            assert answer.json()["type"] == "/problems/unknown-command"
        entries, _ = await people.api.services.audit_log.entries(action="command")
        assert [entry.action for entry in entries] == ["command.withdraw"] + ["command.add"] * 4
        assert all(len(entry.subject) == 16 for entry in entries)
        assert phone.id not in str(entries)
        assert "charge" not in str(entries)


async def test_who_may(tmp_path: Path) -> None:
    """Anonymous callers and viewers may neither command nor list; an operator's devices are those of the registry."""
    async with open_people(tmp_path) as people:
        phone, http = await people.phone(), people.api.http
        path = f"/v1/sites/ul/devices/{phone.id}/commands"
        viewer, operator = await people.token("viewer"), await people.token("operator")
        requests: list[tuple[str, str, Any]] = [
            ("POST", path, {"command": "report"}),
            ("GET", path, None),
            ("GET", f"{path}/0123456789abcdef", None),
            ("DELETE", f"{path}/0123456789abcdef", None),
            ("GET", f"/v1/sites/ul/devices/{phone.id}/trace", None),
        ]
        for method, where, body in requests:
            assert (await http.request(method, where, json=body)).status_code == 401
            answer = await http.request(method, where, json=body, headers=viewer)
            assert answer.status_code == 403
            answer = await http.request(method, where, json=body, headers=phone.headers())
            assert answer.status_code == 401
        for id_ in ("a" * 20, "phone-1"):
            where = f"/v1/sites/ul/devices/{id_}/commands"
            answer = await http.post(where, json={"command": "report"}, headers=operator)
            assert answer.json()["type"] == "/problems/unknown-device"
            assert (await http.get(where, headers=operator)).status_code == 404
        elsewhere = path.replace("/ul/", "/moon/")
        answer = await http.post(elsewhere, json={"command": "report"}, headers=operator)
        assert answer.json()["type"] == "/problems/unknown-site"


async def test_what_is_refused(tmp_path: Path) -> None:
    """An invalid command is 422 with the field's name; too many pending ones are 409."""
    async with open_people(tmp_path) as people:
        phone, http = await people.phone(), people.api.http
        path, operator = f"/v1/sites/ul/devices/{phone.id}/commands", await people.token("operator")
        bodies: list[Any] = [
            {"command": "dance"},
            {"command": "interval"},
            {"command": "interval", "interval_s": -1},
            {"command": "report", "expires_s": 1e9},
            {"command": "pause", "pause_s": 1e99},
            {"command": "message", "text": "x" * 257},
            {"command": "report", "unknown": 1},
            [],
            None,
        ]
        for body in bodies:
            answer = await http.post(path, json=body, headers=operator)
            assert answer.status_code == 422, body
            assert answer.json()["errors"]
        for _ in range(20):
            assert (await http.post(path, json={"command": "report"}, headers=operator)).is_success
        answer = await http.post(path, json={"command": "report"}, headers=operator)
        assert (answer.status_code, answer.json()["type"]) == (409, "/problems/too-many-commands")


async def test_open(tmp_path: Path) -> None:
    """Where all is open, a device that isn't registered can be commanded, if its kind is named."""
    async with open_people(tmp_path, open=True) as people:
        http, path = people.api.http, "/v1/sites/ul/devices/phone-1/commands"
        answer = await http.post(path, json={"command": "report"})
        assert answer.json()["errors"][0]["parameter"] == "kind"
        answer = await http.post(path, json={"command": "report", "kind": "vehicle"})
        assert answer.status_code == 201
        assert len((await http.get(path)).json()["commands"]) == 1


async def test_trace(tmp_path: Path) -> None:
    """A trace requires a reason, which is recorded; an unknown device has no trace."""
    async with open_people(tmp_path) as people:
        phone, operator = await people.phone(), await people.token("operator")
        path = f"/v1/sites/ul/devices/{phone.id}/trace"
        assert (await people.api.get(path, headers=operator)).status_code == 422
        answer = await people.api.get(path, headers=operator | REASON)
        assert answer.json()["type"] == "/problems/unknown-device"
        assert (await people.api.services.audit_log.entries(action="positions"))[0] == []
        for n in range(3):
            await people.fix(phone, time.time() - 30 + n, *LIBRARY, acc=8.0)
        answer = await people.api.get(f"{path}?limit=2", headers=operator | REASON)
        found = TraceResponse.model_validate(answer.json())
        assert [line.rule for line in found.lines] == ["1.11", "1.11"]
        assert found.zones[:2] == ["site", "library"]
        [entry], _ = await people.api.services.audit_log.entries(action="positions")
        assert (entry.action, entry.detail["reason"]) == ("positions.trace", REASON["headcount-reason"])
        assert (len(entry.subject), entry.detail["rows"]) == (16, 2)
        unknown = await people.api.get("/v1/sites/ul/devices/never/trace", headers=operator | REASON)
        assert unknown.status_code == 404
        for limit in ("0", "501", "x"):
            assert (
                await people.api.get(f"{path}?limit={limit}", headers=operator | REASON)
            ).status_code == 422

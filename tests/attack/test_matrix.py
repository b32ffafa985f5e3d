"""Every role against every endpoint and every topic; and that no single rule can go unnoticed.

The expectations are written here by hand, and share nothing with the code that decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from starlette.requests import HTTPConnection

from api_fixture import app_without_broker, open_api
from headcount.access.roles import SCOPES, Caller, caller
from headcount.api.middleware.authorization import RequireScope
from headcount.api.openapi import routes
from headcount.devices import permissions
from headcount.messages.records import ACCESS_ROLES, Device, DeviceStatus
from headcount.messages.topics import OWNTRACKS_SUBTOPICS

# --- the API ---------------------------------------------------------------------------------------------
#: The least role that may; "anybody" may without signing in; "device" knows devices' own credentials only.
ENDPOINTS = {
    "GET /healthz": "anybody",
    "GET /readyz": "anybody",
    "GET /v1/whoami": "anybody",
    "GET /v1/sites": "anybody",
    "GET /v1/sites/{site}": "anybody",
    "GET /v1/sites/{site}/counts": "anybody",
    "GET /v1/sites/{site}/zones/{zone}": "anybody",
    "GET /v1/sites/{site}/zones/{zone}/forecast": "anybody",
    "GET /v1/sites/{site}/zones/{zone}/history": "anybody",
    "GET /v1/sites/{site}/history": "anybody",
    "GET /v1/sites/{site}/history.csv": "anybody",
    "GET /v1/sites/{site}/zones/{zone}/arrivals": "anybody",
    "GET /v1/sites/{site}/arrivals.csv": "anybody",
    "GET /v1/sites/{site}/zones/{zone}/dwell-times": "anybody",
    "GET /v1/sites/{site}/origin-destination": "anybody",
    "GET /v1/sites/{site}/origin-destination.csv": "anybody",
    "GET /v1/sites/{site}/zones/{zone}/typical-week": "anybody",
    "GET /v1/sites/{site}/zones/{zone}/heat-map": "anybody",
    "GET /v1/sites/{site}/ngsi-ld/entities": "anybody",
    "GET /v1/sites/{site}/spaceapi.json": "anybody",
    "GET /v1/sites/{site}/stream": "anybody",
    "GET /v1/sites/{site}/ws": "anybody",
    "POST /v1/provision": "anybody",
    "GET /v1/provision/{code}.otrc": "anybody",
    "GET /metrics": "viewer",
    "GET /v1/system/scaling": "viewer",
    "GET /v1/sites/{site}/fixes": "viewer",
    "POST /v1/sites/{site}/fixes": "viewer",
    "GET /v1/sites/{site}/zones/{zone}/stays": "operator",
    "GET /v1/sites/{site}/devices": "operator",
    "POST /v1/sites/{site}/devices": "operator",
    "GET /v1/sites/{site}/devices.csv": "operator",
    "POST /v1/sites/{site}/devices.csv": "operator",
    "POST /v1/sites/{site}/claims": "operator",
    "GET /v1/sites/{site}/devices/{device}": "operator",
    "PATCH /v1/sites/{site}/devices/{device}": "operator",
    "DELETE /v1/sites/{site}/devices/{device}": "operator",
    "POST /v1/sites/{site}/devices/{device}/rotate": "operator",
    "POST /v1/sites/{site}/devices/{device}/link": "operator",
    "POST /v1/sites/{site}/devices/{device}/key": "operator",
    "DELETE /v1/sites/{site}/devices/{device}/key": "operator",
    "POST /v1/sites/{site}/devices/{device}/ingest-key": "operator",
    "DELETE /v1/sites/{site}/devices/{device}/ingest-key": "operator",
    "GET /v1/sites/{site}/devices/{device}/trace": "operator",
    "GET /v1/sites/{site}/devices/{device}/commands": "operator",
    "POST /v1/sites/{site}/devices/{device}/commands": "operator",
    "GET /v1/sites/{site}/devices/{device}/commands/{command}": "operator",
    "DELETE /v1/sites/{site}/devices/{device}/commands/{command}": "operator",
    "GET /v1/sites/{site}/devices/{kind}/{device}": "operator",
    "PUT /v1/sites/{site}": "admin",
    "DELETE /v1/sites/{site}": "admin",
    "GET /v1/tokens": "admin",
    "POST /v1/tokens": "admin",
    "DELETE /v1/tokens/{id}": "admin",
    "POST /v1/sessions/end": "admin",
    "GET /v1/audit": "admin",
    "GET /v1/audit/verify": "admin",
    "POST /v1/fixes": "device",
    "GET /v1/osmand": "anybody",  # the key of a device is in the request
    "POST /v1/osmand": "anybody",
    "GET /v1/me": "device",
    "DELETE /v1/me": "device",
    "GET /v1/me/export": "device",
    "GET /v1/me/trace": "device",
    "GET /v1/me/stays": "device",
    "POST /v1/me/pause": "device",
    "POST /v1/me/resume": "device",
    "POST /v1/owntracks": "device",
}
VALUES = {
    "{site}": "ul",
    "{zone}": "library",
    "{device}": "a2b3c4d5e6f7a2b3c4d5",
    "{id}": "a2b3c4d5e6f7a2b3c4d5",
    "{command}": "nothing",
    "{kind}": "person",
    "{code}": "nothing",
}
CLOSED: dict[str, Any] = {"open": False, "smallest_shown": 5, "requests_per_s": 100_000.0}


def path_of(endpoint: str) -> tuple[str, str]:
    """Method and path with values in it."""
    method, _, path = endpoint.partition(" ")
    for name, value in VALUES.items():
        path = path.replace(name, value)
    return method, path


def may(role: str, least: str) -> bool:
    """Whether the table allows it."""
    order = ["anybody", *ACCESS_ROLES]
    return least != "device" and order.index(role) >= order.index(least)


def served(app: FastAPI) -> Iterator[str]:
    """All endpoints of the API."""
    for path, operations in app.openapi()["paths"].items():
        for method in operations:
            yield f"{method.upper()} {path}"


def test_the_table_has_every_endpoint(tmp_path: Path) -> None:
    """An endpoint that is missing in the table fails the test."""
    assert set(served(app_without_broker(tmp_path))) == set(ENDPOINTS)


async def test_every_role_at_every_endpoint(tmp_path: Path) -> None:
    """Callers with the right get through, anonymous ones get 401, others 403; another site is 404 for all of its paths."""
    async with open_api(tmp_path, **CLOSED) as api:
        callers: list[tuple[str, dict[str, str]]] = [("public", {})]
        for known in ACCESS_ROLES[1:]:
            _, text = await api.services.token_store.add("matrix", known)
            callers.append((known, {"authorization": f"Bearer {text}"}))
        _, text = await api.services.token_store.add("matrix", "admin", sites=["moon"])
        callers.append(("elsewhere", {"authorization": f"Bearer {text}"}))
        wrong = []
        for (role, headers), (endpoint, least) in product(callers, ENDPOINTS.items()):
            if endpoint == "DELETE /v1/me" and role == "public":
                continue  # the same as the others of its kind
            status = await ask(api.http, endpoint, headers)
            if role == "elsewhere" and "{site}" in endpoint:
                if status != 404:
                    wrong.append((role, endpoint, status))
                continue
            here = "public" if role == "elsewhere" else role
            expected = may(here, least)
            refused = 401 if role == "public" or least == "device" else 403
            if status == 429 and least == "device":  # who guesses is made to wait
                continue
            if (status not in (401, 403)) != expected or (not expected and status != refused):
                wrong.append((role, endpoint, status))
        assert not wrong


async def ask(http: httpx.AsyncClient, endpoint: str, headers: dict[str, str]) -> int:
    """The status of an answer; what streams isn't read."""
    method, path = path_of(endpoint)
    body: dict[str, str] | None = {} if method in ("POST", "PATCH") else None
    async with http.stream(method, path, headers=headers, json=body) as answer:
        return answer.status_code


async def test_no_endpoints_rule_can_go_unnoticed(tmp_path: Path) -> None:
    """With the rule of any single endpoint taken away, anonymous callers get through where the table forbids it."""
    guarded = [name for name, least in ENDPOINTS.items() if least in ACCESS_ROLES]
    app = app_without_broker(tmp_path, **CLOSED)
    unnoticed = []
    for endpoint in guarded:
        assert await status_at(app, endpoint) == 401
        rules = [
            rule
            for route in routes(app)
            for method in route.methods or ()
            if f"{method} {route.path}" == endpoint
            for rule in rules_of(route.dependant)
        ]
        kinds = [type(rule) for rule in rules]
        for rule in rules:
            rule.__class__ = LetsIn
        if await status_at(app, endpoint) == 401:
            unnoticed.append(endpoint)
        for rule, kind in zip(rules, kinds, strict=True):
            rule.__class__ = kind
    assert not unnoticed


async def status_at(app: FastAPI, endpoint: str) -> int:
    """The status for an anonymous caller."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("192.0.2.1", 4711))
    async with httpx.AsyncClient(transport=transport, base_url="http://campus.example") as http:
        return await ask(http, endpoint, {})


class LetsIn(RequireScope):
    """A rule that isn't one."""

    async def __call__(self, connection: HTTPConnection) -> Caller:
        """Anybody."""
        return caller("admin", str(connection.client))


def rules_of(dependant: Dependant) -> Iterator[RequireScope]:
    """The rules of an endpoint, and of what it depends on."""
    for inner in dependant.dependencies:
        if isinstance(inner.call, RequireScope):
            yield inner.call
        yield from rules_of(inner)


#: Scope → the least role that has it.
MIN_ROLE = {
    "counts:exact": "viewer",
    "system:read": "viewer",
    "positions:coarse": "viewer",
    "positions:read": "operator",
    "events:read": "operator",
    "devices:read": "operator",
    "devices:write": "operator",
    "commands:write": "operator",
    "sites:write": "admin",
    "tokens:write": "admin",
    "audit:read": "admin",
}


def test_every_scope_of_every_role() -> None:
    """The roles' scopes are those of the table, and there are no others."""
    from headcount.access.roles import scopes_of  # noqa: PLC0415  # beside its expectation

    assert set(MIN_ROLE) == set(SCOPES)
    for role, scope in product(ACCESS_ROLES, SCOPES):
        assert (scope in scopes_of(role)) == may(role, MIN_ROLE[scope]), (role, scope)


# --- MQTT --------------------------------------------------------------------------------------------------
OWN, OTHER = "a2b3c4d5e6f7a2b3c4d5", "z2y3x4w5v6u7z2y3x4w5"
CLIENTS = ("device", "paused", "gateway", "public", "viewer", "operator", "admin")
SENDERS = {"device", "gateway"}
PROGRAMS = {"viewer", "operator", "admin"}
EVERYBODY = set(CLIENTS)
DEVICES = {"device", "paused", "gateway"}
#: Subject → who may publish there.
PUBLISH = {
    f"headcount.ul.person.{OWN}.fix": SENDERS,
    f"headcount.ul.person.{OWN}.status": SENDERS,
    f"headcount.ul.person.{OWN}.ack": DEVICES,
    f"fix.3.ul.person.{OWN}": SENDERS,
    f"fix.3.ul.person.{OWN}.status": SENDERS,
    f"owntracks.{OWN}.phone": SENDERS,
    f"owntracks.{OWN}.phone.event": SENDERS,
    **{f"owntracks.{OWN}.phone.{subtopic}": SENDERS for subtopic in OWNTRACKS_SUBTOPICS},
    "car-iotp": {"gateway"},
    "tracker.7.up": {"gateway"},
    "mobile-iotp": {"gateway"},
    f"headcount.ul.person.{OTHER}.fix": set(),
    f"headcount.ul.person.{OTHER}.status": set(),
    f"headcount.ul.person.{OTHER}.ack": set(),
    f"headcount.ul.vehicle.{OWN}.fix": set(),
    f"headcount.moon.person.{OWN}.fix": set(),
    f"headcount.ul.person.{OWN}.cmd": set(),
    f"fix.3.ul.person.{OTHER}": set(),
    f"fix.3.ul.vehicle.{OWN}": set(),
    f"owntracks.{OTHER}.phone": set(),
    "headcount.ul.counts.library": set(),
    "headcount.ul.exact.library": set(),
    "headcount.ul.events.library": set(),
    "headcount.ul.site": set(),
    "fix.3.tick": set(),
    "fix.3.forget": set(),
    "count.3.ul": set(),
    "event.ul.library": set(),
    "history.3": set(),
    "ask.3": set(),
    "audit.device.add": set(),
    f"$KV.DEVICE.device.{OWN}": set(),
    "$KV.ACCESS.token.x": set(),
    "$JS.API.STREAM.PURGE.FIX_3": set(),
    "$SYS.REQ.USER.AUTH": set(),
    "$MQTT.msgs.fix.3.ul.person.x": set(),
    "unit.broker.b1.kick": set(),
    "metrics.count.w1": set(),
}
#: Subject, with wildcards where a client could write them, → who may subscribe to it.
SUBSCRIBE = {
    "headcount.ul.counts.>": EVERYBODY,
    "headcount.ul.counts.library": EVERYBODY,
    "headcount.ul.counts": EVERYBODY,
    "headcount.ul.exact": PROGRAMS,
    "headcount.ul.events": {"operator", "admin"},
    "headcount.ul.site": EVERYBODY,
    f"headcount.ul.person.{OWN}.cmd": DEVICES,
    f"owntracks.{OWN}.phone.cmd": DEVICES,
    f"owntracks.{OTHER}.phone.cmd": set(),
    "headcount.ul.exact.library": PROGRAMS,
    "headcount.ul.exact.>": PROGRAMS,
    "headcount.ul.events.library": {"operator", "admin"},
    "headcount.ul.events.>": {"operator", "admin"},
    f"headcount.ul.person.{OTHER}.cmd": set(),
    "headcount.ul.person.*.cmd": set(),
    "headcount.*.*.*.cmd": set(),
    "headcount.ul.>": set(),
    "headcount.>": set(),
    ">": set(),
    f"headcount.ul.person.{OTHER}.fix": set(),
    "headcount.ul.person.*.fix": set(),
    f"headcount.ul.person.{OWN}.ack": set(),
    f"headcount.ul.person.{OTHER}.status": set(),
    "headcount.moon.person.x.cmd": set(),
    "fix.>": set(),
    "count.*.*": set(),
    "event.>": set(),
    "history.*": set(),
    "owntracks.*.*": set(),
    "car-iotp": set(),
    "audit.>": set(),
    "$KV.>": set(),
    "$KV.DEVICE.>": set(),
    "$SYS.>": set(),
    "$JS.>": set(),
    "$MQTT.>": set(),
    "ask.3": set(),
    "metrics.>": set(),
    "unit.>": set(),
    "_INBOX.>": set(),
}


for _table in (PUBLISH, SUBSCRIBE):
    for _subject in list(_table):
        # the same of another site, kind or device: forbidden to all
        for _mine, _foreign in (("ul", "moon"), ("person", "vehicle"), (OWN, OTHER)):
            _tokens = _subject.split(".")
            if _mine in _tokens:
                _tokens[_tokens.index(_mine)] = _foreign
                _table.setdefault(".".join(_tokens), set())


def rights_of(client: str) -> permissions.Permissions:
    """The rights that the product grants to a kind of client."""
    if client in ACCESS_ROLES:
        return permissions.program_permissions(client, ("ul",))
    status: DeviceStatus = "paused" if client == "paused" else "active"
    device = Device(id=OWN, site="ul", kind="person", status=status, gateway=client == "gateway")
    rights = permissions.device_permissions(device, ("tracker.*.up",))
    assert rights is not None
    return rights


def covers(allowed: str, asked: str) -> bool:
    """Whether a subject with wildcards allows everything of another.

    Source: docs.nats.io, "Subject-Based Messaging": `*` is one token, `>` one or more at the end.
    """
    want, have = asked.split("."), allowed.split(".")
    for index, part in enumerate(have):
        if part == ">":
            return len(want) > index
        if index >= len(want) or (part != "*" and part != want[index]) or want[index] == ">":
            return False
    return len(want) == len(have)


def outcome(rights: permissions.Permissions) -> tuple[list[bool], list[bool]]:
    """The rows of both tables that these rights allow."""
    publish = [any(covers(each, subject) for each in rights.publish) for subject in PUBLISH]
    return publish, [any(covers(each, subject) for each in rights.subscribe) for subject in SUBSCRIBE]


def expected(client: str) -> tuple[list[bool], list[bool]]:
    """The rows of both tables that are expected."""
    return [client in who for who in PUBLISH.values()], [client in who for who in SUBSCRIBE.values()]


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_at_every_topic(client: str) -> None:
    """Each kind of client may publish and subscribe to exactly the topics of the tables."""
    assert outcome(rights_of(client)) == expected(client)


@pytest.mark.parametrize("status", ["disabled", "erasing"])
def test_who_is_out_has_no_rights(status: Any) -> None:
    """A disabled device isn't let in at all."""
    assert permissions.device_permissions(Device(id=OWN, site="ul", kind="person", status=status)) is None


@pytest.mark.parametrize("client", CLIENTS)
def test_no_topics_rule_can_go_unnoticed(client: str) -> None:
    """With any single right taken away, or widened to a wildcard, the tables are not met any more."""
    rights = rights_of(client)
    for kind in ("publish", "subscribe"):
        given: tuple[str, ...] = getattr(rights, kind)
        for index, subject in enumerate(given):
            rest = given[:index] + given[index + 1 :]
            # `counts` beside `counts.>` is how a filter `counts/#` is asked for
            needless = f"{subject}.>" in given
            if not needless:
                assert outcome(changed(rights, kind, rest)) != expected(client), f"{subject} isn't missed"
            tokens = subject.split(".")
            for place, token in enumerate(tokens):
                if token in (OWN, "person", "ul"):
                    wider = ".".join([*tokens[:place], "*", *tokens[place + 1 :]])
                    assert outcome(changed(rights, kind, (*rest, wider))) != expected(client), (
                        f"{wider} passes"
                    )


def changed(rights: permissions.Permissions, kind: str, subjects: tuple[str, ...]) -> permissions.Permissions:
    """The same with other subjects."""
    if kind == "publish":
        return permissions.Permissions(subjects, rights.subscribe)
    return permissions.Permissions(rights.publish, subjects)

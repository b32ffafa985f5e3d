"""Who is let in, and as which: every branch of the decision, without a server."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from headcount.devices import authentication, credentials, permissions
from headcount.devices.auth_callout import AuthRequest, ClientCertificate
from headcount.devices.authentication import (
    GUESSING_REASONS,
    REFUSAL_REASONS,
    Authenticated,
    DeviceAuthenticator,
    RefusalReason,
)
from headcount.devices.bans import ban_key
from headcount.messages.records import DEVICE_KEY, ROLES, Ban, Device, Role, Token

NOW_S = 1_800_000_000.0
ID, OTHER = "a2b3c4d5e6f7a2b3c4d5", "b2b3c4d5e6f7a2b3c4d5"
SECRET, ANOTHER = credentials.new_secret(), credentials.new_secret()
KEY = credentials.token_key("the deployment's secret")
PIN, FOREIGN_PIN = "ab" * 32, "cd" * 32
HERE, ELSEWHERE = "192.0.2.1", "2001:db8::1"


def device(**fields: Any) -> Device:
    """A device of the registry, with SECRET."""
    return Device(
        **({"id": ID, "site": "ul", "kind": "person", "secret": credentials.hash_secret(SECRET)} | fields)
    )


def known(*devices: Device) -> DeviceAuthenticator:
    """An admission that has read a registry of these."""
    found = DeviceAuthenticator(KEY)
    found.all_devices({DEVICE_KEY.format(id=one.id): msgspec.json.encode(one) for one in devices})
    return found


def asks(**fields: Any) -> AuthRequest:
    """Somebody who does everything right, but for these."""
    right = {"user": ID, "password": SECRET, "client_id": ID, "address": HERE, "type": "mqtt"}
    return AuthRequest(**({"key": "K", "server": "S"} | right | fields))


def ban(gate: DeviceAuthenticator, who: str, until_s: float) -> None:
    """Keep somebody out."""
    gate.ban_changed(ban_key(who), msgspec.json.encode(Ban(until_s, "a test")))


def signed(
    device_id: str = ID, *, key: bytes = KEY, issued_s: float = NOW_S, expires_s: float = NOW_S + 60
) -> str:
    """A signed token."""
    return credentials.sign_token(key, device_id, expires_s, issued_s)


def token(role: Role = "viewer", **fields: Any) -> Token:
    """An API token that has been found."""
    usual: dict[str, Any] = {"id": "t2", "name": "n", "role": role, "secret": "", "created": 0.0}
    return Token(**(usual | fields))


# --- devices ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("client_id", [ID, f"{ID}-", f"{ID}-phone 2"])
@pytest.mark.parametrize("kind", ["mqtt", "mqtt_ws"])
def test_the_right_password(client_id: str, kind: str) -> None:
    """Its id, its secret and a client id of its own: it is in, for good, with a device's rights."""
    found = known(device()).decide(asks(client_id=client_id, type=kind), NOW_S)
    assert isinstance(found, Authenticated)
    assert (found.device, found.expires_s) == (ID, None)
    assert found.name.startswith(f"{ID}.")
    assert found.rights == permissions.device_permissions(device())


CERTIFIED = {"certificate": ClientCertificate(ID, PIN), "password": ""}
BY_PIN = device(certificate=PIN.upper())


@pytest.mark.parametrize(
    ("account", "asked", "reason"),
    [
        # nothing that devices are not told of
        (device(), {"type": "nats"}, "protocol"),
        (device(), {"type": "websocket"}, "protocol"),
        (device(), {"type": ""}, "protocol"),
        # who
        (device(), {"user": OTHER}, "unknown"),
        (device(), {"user": ""}, "unknown"),
        (device(), {"user": "headcount"}, "unknown"),
        (device(), {"user": ID.upper()}, "unknown"),
        # passwords
        (device(), {"password": ""}, "password"),
        (device(), {"password": ANOTHER}, "password"),
        (device(), {"password": SECRET + "a"}, "password"),
        (device(), {"password": SECRET[:-1]}, "password"),
        (device(), {"password": "x" * 10_000}, "password"),
        (device(), {"password": "\ud800"}, "password"),
        (device(secret=""), {"password": ""}, "password"),
        (device(secret=""), {}, "password"),
        (device(secret="damaged"), {}, "password"),  # noqa: S106
        # signed tokens
        (device(), {"password": signed(OTHER)}, "password"),
        (device(), {"password": signed(key=b"another key of some length")}, "password"),
        (device(), {"password": signed(expires_s=NOW_S)}, "password"),
        (device(), {"password": signed(issued_s=NOW_S + 3600, expires_s=NOW_S + 7200)}, "password"),
        (device(valid_from=NOW_S + 1), {"password": signed()}, "password"),
        (device(), {"password": "a.b.c"}, "password"),
        # client ids
        (device(), {"client_id": ""}, "client-id"),
        (device(), {"client_id": OTHER}, "client-id"),
        (device(), {"client_id": f"{ID}2"}, "client-id"),
        (device(), {"client_id": f"x{ID}"}, "client-id"),
        (device(), {"client_id": f"{ID}.a"}, "client-id"),
        # certificates
        (device(), {"certificate": ClientCertificate(OTHER, PIN)}, "certificate"),
        (device(), CERTIFIED | {"certificate": ClientCertificate(OTHER, PIN)}, "certificate"),
        (device(), CERTIFIED | {"user": "", "certificate": ClientCertificate(OTHER, PIN)}, "unknown"),
        (BY_PIN, CERTIFIED | {"certificate": ClientCertificate(ID, FOREIGN_PIN)}, "certificate"),
        (BY_PIN, {"certificate": ClientCertificate(ID, FOREIGN_PIN)}, "certificate"),
        (device(), CERTIFIED | {"certificate": ClientCertificate("a laptop", PIN)}, "password"),
        (device(), CERTIFIED | {"client_id": OTHER}, "client-id"),
        (device(), {"certificate": ClientCertificate(ID, PIN), "password": ANOTHER}, "password"),
        # status
        (device(status="disabled"), {}, "status"),
        (device(status="erasing"), {}, "status"),
        (device(status="disabled"), CERTIFIED, "status"),
        (device(status="disabled"), {"password": signed()}, "status"),
        (device(status="disabled"), {"password": ANOTHER}, "password"),
    ],
)
def test_who_is_not_let_in(account: Device, asked: dict[str, Any], reason: RefusalReason) -> None:
    """With a single thing wrong nobody is let in, and the metrics say which it was."""
    assert known(account).decide(asks(**asked), NOW_S) == reason


@pytest.mark.parametrize(
    ("account", "asked"),
    [
        (device(), CERTIFIED),
        (device(secret=""), CERTIFIED),
        (device(), CERTIFIED | {"user": ""}),
        (BY_PIN, CERTIFIED),
        (BY_PIN, {}),  # its password is as good, where the server doesn't ask for a certificate
        (device(), {"certificate": ClientCertificate(ID, PIN)}),
        (
            device(),
            {"certificate": ClientCertificate("a laptop", PIN)},
        ),  # names nobody: the password says who it is
    ],
)
def test_certificates(account: Device, asked: dict[str, Any]) -> None:
    """A certificate with its id is enough; where the registry names one it must be that."""
    found = known(account).decide(asks(**asked), NOW_S)
    assert isinstance(found, Authenticated)
    assert found.device == ID


def test_a_signed_token_ends() -> None:
    """A signed token lets its device in until its end, which the server is told."""
    gate = known(device(valid_from=NOW_S))
    found = gate.decide(asks(password=signed()), NOW_S + 59)
    assert isinstance(found, Authenticated)
    assert found.expires_s == NOW_S + 60
    assert gate.decide(asks(password=signed()), NOW_S + 60) == "password"


def test_paused() -> None:
    """Who is paused is let in to hear, and may publish nothing but answers to commands."""
    found = known(device(status="paused")).decide(asks(), NOW_S)
    assert isinstance(found, Authenticated)
    assert found.rights.publish == (f"headcount.ul.person.{ID}.ack",)


def test_rights_are_of_the_registrys_site() -> None:
    """Where a device may publish follows from the registry, not from what it says."""
    found = known(device(site="moon", kind="vehicle")).decide(asks(), NOW_S)
    assert isinstance(found, Authenticated)
    mine = ("headcount.moon.vehicle.", "fix.*.moon.vehicle.", "owntracks.")
    assert all(subject.startswith(mine) and ID in subject for subject in found.rights.publish)


def test_before_the_registry_is_read() -> None:
    """A gate that has just been started lets nobody in."""
    gate = DeviceAuthenticator(KEY)
    assert gate.decide(asks(), NOW_S) == "starting"
    assert gate.decide_program(asks(user="token"), token(), NOW_S) == "starting"


def test_reasons_are_told_apart() -> None:
    """Only who may be guessing counts against an address; all reasons are in the metrics."""
    assert set(GUESSING_REASONS) < set(REFUSAL_REASONS)
    assert not GUESSING_REASONS & {"banned", "client-id", "status", "starting", "protocol"}


# --- programs --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("role", ROLES)
def test_programs(role: Role) -> None:
    """A program gets its role's rights on its token's sites until the token's end, and publishes nothing."""
    asked = asks(user="token", client_id="t2-any name")
    found = known().decide_program(asked, token(role, sites=["ul"], expires=NOW_S + 5), NOW_S)
    assert isinstance(found, Authenticated)
    assert (found.name, found.device, found.expires_s) == ("token.t2", None, NOW_S + 5)
    assert found.rights == permissions.program_permissions(role, ("ul",))
    assert not found.rights.publish
    assert ("headcount.ul.exact.>" in found.rights.subscribe) == (role != "public")
    assert ("headcount.ul.events.>" in found.rights.subscribe) == (role in {"operator", "admin"})


@pytest.mark.parametrize(
    ("scopes", "heard"),
    [
        ([], {"counts", "site", "exact", "events"}),
        (["system:read"], {"counts", "site"}),
        (["counts:exact"], {"counts", "site", "exact"}),
        (["events:read", "devices:read"], {"counts", "site", "events"}),
    ],
)
def test_scopes_of_programs(scopes: list[str], heard: set[str]) -> None:
    """A token that is narrowed to some scopes hears no more over MQTT than it may see over HTTP."""
    found = known().decide_program(
        asks(user="token", client_id="t2"), token("operator", sites=["ul"], scopes=scopes), NOW_S
    )
    assert isinstance(found, Authenticated)
    assert {subject.split(".")[2] for subject in found.rights.subscribe} == heard


@pytest.mark.parametrize(
    ("fields", "found", "reason"),
    [
        ({}, None, "token"),
        ({"client_id": ID}, token(), "client-id"),
        ({"client_id": f"{ID}-x"}, token(), "client-id"),
        ({"client_id": "t3"}, token(), "client-id"),
        ({"client_id": "t23-x"}, token(), "client-id"),
        ({"client_id": ""}, token(), "client-id"),
        ({"type": "nats"}, token(), "protocol"),
    ],
)
def test_programs_that_are_not_let_in(
    fields: dict[str, Any], found: Token | None, reason: RefusalReason
) -> None:
    """Without a token that lives, or with the client id of a device or of another program, it stays out."""
    assert (
        known(device()).decide_program(asks(**{"user": "token", "client_id": "t2"} | fields), found, NOW_S)
        == reason
    )


# --- bans ------------------------------------------------------------------------------------------------
def test_a_banned_device() -> None:
    """It is out until the ban is over or lifted, others aren't; its connections don't hold meanwhile."""
    gate = known(device(), device(id=OTHER))
    name = gate.decide(asks(), NOW_S)
    assert isinstance(name, Authenticated)
    ban(gate, ID, NOW_S + 10)
    assert gate.decide(asks(), NOW_S) == "banned"
    assert not gate.holds(name.name, HERE, NOW_S)
    assert isinstance(gate.decide(asks(user=OTHER, client_id=OTHER), NOW_S), Authenticated)
    assert isinstance(gate.decide(asks(), NOW_S + 10), Authenticated)
    assert gate.holds(name.name, HERE, NOW_S + 10)
    gate.ban_changed(ban_key(ID), None)
    assert isinstance(gate.decide(asks(), NOW_S), Authenticated)


def test_guesses_at_a_banned_device_are_guesses() -> None:
    """Who has no proof isn't told apart by whether the device is banned: it counts against the address."""
    gate = known(device())
    ban(gate, ID, NOW_S + 10)
    assert gate.decide(asks(password=ANOTHER), NOW_S) == "password"


@pytest.mark.parametrize("address", [HERE, ELSEWHERE])
def test_a_banned_address(address: str) -> None:
    """Nobody comes in from there, device or program; from elsewhere they do."""
    gate = known(device())
    found = gate.decide(asks(), NOW_S)
    assert isinstance(found, Authenticated)
    gate.all_bans({ban_key(address): msgspec.json.encode(Ban(NOW_S + 10, "")), "device.x": b"broken"})
    assert gate.decide(asks(address=address), NOW_S) == "banned"
    assert gate.decide_program(asks(address=address), token(), NOW_S) == "banned"
    assert not gate.holds(found.name, address, NOW_S)
    assert isinstance(gate.decide(asks(address="192.0.2.99"), NOW_S), Authenticated)
    assert isinstance(gate.decide(asks(address=address), NOW_S + 10), Authenticated)


# --- what changes ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "fields",
    [
        {"status": "disabled"},
        {"status": "paused"},
        {"status": "erasing"},
        {"secret": credentials.hash_secret(ANOTHER)},
        {"certificate": PIN},
        {"valid_from": NOW_S},
        {"gateway": True},
        {"site": "moon"},
        {"kind": "vehicle"},
    ],
)
def test_whatever_changes_rights_cuts(fields: dict[str, Any]) -> None:
    """Each field that decides about rights changes the name, and connections of the old one are cut."""
    gate = known(device())
    found = gate.decide(asks(), NOW_S)
    assert isinstance(found, Authenticated)
    changed = msgspec.structs.replace(device(secret=""), **({"secret": "x"} | fields))
    assert gate.device_changed(DEVICE_KEY.format(id=ID), msgspec.json.encode(changed)) == found.name
    assert not gate.holds(found.name, HERE, NOW_S)


def test_a_label_cuts_nobody() -> None:
    """What has nothing to do with rights leaves connections alone."""
    account = device()
    gate = known(account)
    found = gate.decide(asks(), NOW_S)
    assert isinstance(found, Authenticated)
    renamed = msgspec.structs.replace(account, label="Ada", groups=["staff"], firmware="2", changed=NOW_S)
    assert gate.device_changed(DEVICE_KEY.format(id=ID), msgspec.json.encode(renamed)) is None
    assert gate.holds(found.name, HERE, NOW_S)


@pytest.mark.parametrize("value", [None, b"broken", msgspec.json.encode(device(id=OTHER))])
def test_a_device_that_is_gone(value: bytes | None) -> None:
    """Removed, or unreadable, or another's value under its key: it is unknown and its connections are cut."""
    gate = known(device())
    found = gate.decide(asks(), NOW_S)
    assert isinstance(found, Authenticated)
    assert gate.device_changed(DEVICE_KEY.format(id=ID), value) == found.name
    assert gate.decide(asks(), NOW_S) == "unknown"
    assert not gate.holds(found.name, HERE, NOW_S)
    assert len(gate) == 0


def test_the_registry_read_again() -> None:
    """What isn't in it any more is unknown, as if it had been removed."""
    gate = known(device(), device(id=OTHER, gateway=True))
    assert (gate.gateway(OTHER), gate.gateway(ID), gate.gateway("nobody")) == (True, False, False)
    gate.all_devices({DEVICE_KEY.format(id=OTHER): msgspec.json.encode(device(id=OTHER))})
    assert gate.decide(asks(), NOW_S) == "unknown"
    assert isinstance(gate.decide(asks(user=OTHER, client_id=OTHER), NOW_S), Authenticated)


# --- passwords that were found right ----------------------------------------------------------------------
@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every password that is hashed."""
    seen: list[str] = []
    matches = credentials.verify_secret

    def counted(secret: str, hash_: str) -> bool:
        seen.append(secret)
        return matches(secret, hash_)

    monkeypatch.setattr(credentials, "verify_secret", counted)
    return seen


def test_a_password_is_hashed_once(hashes: list[str]) -> None:
    """Who comes again with the same password isn't hashed again; a wrong one always is, and never helps."""
    gate = known(device())
    for _ in range(3):
        assert isinstance(gate.decide(asks(), NOW_S), Authenticated)
    assert hashes == [SECRET]
    for _ in range(2):
        assert gate.decide(asks(password=ANOTHER), NOW_S) == "password"
    assert isinstance(gate.decide(asks(), NOW_S), Authenticated)
    assert hashes == [SECRET, ANOTHER, ANOTHER]


@pytest.mark.parametrize("whole", [False, True])
def test_a_new_secret_ends_the_old_one(hashes: list[str], *, whole: bool) -> None:
    """After a change the old password is wrong, however often it was right before; so when all is read again."""
    gate = known(device())
    assert isinstance(gate.decide(asks(), NOW_S), Authenticated)
    changed = msgspec.json.encode(device(secret=credentials.hash_secret(ANOTHER)))
    if whole:
        gate.all_devices({DEVICE_KEY.format(id=ID): changed})
    else:
        gate.device_changed(DEVICE_KEY.format(id=ID), changed)
    assert gate.decide(asks(), NOW_S) == "password"
    assert isinstance(gate.decide(asks(password=ANOTHER), NOW_S), Authenticated)
    assert hashes == [SECRET, SECRET, ANOTHER]


def test_what_is_remembered_is_bounded(hashes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """So many passwords are remembered; the oldest is hashed again."""
    monkeypatch.setattr(authentication, "MAX_VERIFIED", 1)
    gate = known(device(), device(id=OTHER))
    for who in (ID, OTHER, OTHER, ID):
        assert isinstance(gate.decide(asks(user=who, client_id=who), NOW_S), Authenticated)
    assert len(hashes) == 3


def test_an_unknown_id_costs_as_much(hashes: list[str]) -> None:
    """An id that there isn't is hashed for as well: time doesn't tell who is registered."""
    gate = known(device())
    assert gate.decide(asks(user=OTHER), NOW_S) == "unknown"
    assert gate.decide(asks(user=OTHER, password="x" * 5000), NOW_S) == "unknown"
    assert len(hashes) == 2

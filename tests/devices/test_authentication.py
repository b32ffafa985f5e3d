"""Authentication: every branch of the decision, without a server."""

from __future__ import annotations

import math
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
from headcount.messages.records import ACCESS_ROLES, DEVICE_KEY, AccessRole, ApiToken, Ban, Device

NOW_S = 1_800_000_000.0
ID, OTHER = "a2b3c4d5e6f7a2b3c4d5", "b2b3c4d5e6f7a2b3c4d5"
SECRET, ANOTHER = credentials.new_secret(), credentials.new_secret()
KEY = credentials.token_key("the deployment's secret")
PIN, FOREIGN_PIN = "ab" * 32, "cd" * 32
HERE, ELSEWHERE = "192.0.2.1", "2001:db8::1"


def device(**fields: Any) -> Device:
    """A registered device with SECRET."""
    return Device(
        **({"id": ID, "site": "ul", "kind": "person", "secret": credentials.hash_secret(SECRET)} | fields)
    )


def known(*devices: Device) -> DeviceAuthenticator:
    """An authenticator with a registry of these devices."""
    found = DeviceAuthenticator(KEY)
    found.replace_devices({DEVICE_KEY.format(id=one.id): msgspec.json.encode(one) for one in devices})
    return found


def request(**fields: Any) -> AuthRequest:
    """A valid request, except for these fields."""
    right = {"user": ID, "password": SECRET, "client_id": ID, "address": HERE, "type": "mqtt"}
    return AuthRequest(**({"key": "K", "server": "S"} | right | fields))


def ban(authenticator: DeviceAuthenticator, who: str, until_s: float) -> None:
    """Ban a device or address."""
    authenticator.update_ban(ban_key(who), msgspec.json.encode(Ban(until_s, "a test")))


def signed(
    device_id: str = ID, *, key: bytes = KEY, issued_s: float = NOW_S, expires_s: float = NOW_S + 60
) -> str:
    """A signed token."""
    return credentials.sign_token(key, device_id, expires_s, issued_s)


def token(role: AccessRole = "viewer", **fields: Any) -> ApiToken:
    """An API token."""
    usual: dict[str, Any] = {"id": "t2", "name": "n", "role": role, "secret": "", "created": 0.0}
    return ApiToken(**(usual | fields))


# --- devices ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("client_id", [ID, f"{ID}-", f"{ID}-phone 2"])
@pytest.mark.parametrize("kind", ["mqtt", "mqtt_ws"])
def test_the_right_password(client_id: str, kind: str) -> None:
    """A device with its id, secret and own client id is authenticated without end, with a device's permissions."""
    found = known(device()).authenticate_device(request(client_id=client_id, type=kind), NOW_S)
    assert isinstance(found, Authenticated)
    assert (found.device, found.expires_s) == (ID, None)
    assert found.name.startswith(f"{ID}.")
    assert found.permissions == permissions.device_permissions(device())


CERTIFIED = {"certificate": ClientCertificate(ID, PIN), "password": ""}
BY_PIN = device(certificate=PIN.upper())


@pytest.mark.parametrize(
    ("account", "asked", "reason"),
    [
        # protocols other than MQTT
        (device(), {"type": "nats"}, "protocol"),
        (device(), {"type": "websocket"}, "protocol"),
        (device(), {"type": ""}, "protocol"),
        # ids
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
def test_refused_devices(account: Device, asked: dict[str, Any], reason: RefusalReason) -> None:
    """A single invalid field refuses the device, with the reason that the metrics show."""
    assert known(account).authenticate_device(request(**asked), NOW_S) == reason


@pytest.mark.parametrize(
    ("account", "asked"),
    [
        (device(), CERTIFIED),
        (device(secret=""), CERTIFIED),
        (device(), CERTIFIED | {"user": ""}),
        (BY_PIN, CERTIFIED),
        (BY_PIN, {}),  # its password suffices if the server does not require a certificate
        (device(), {"certificate": ClientCertificate(ID, PIN)}),
        (
            device(),
            {"certificate": ClientCertificate("a laptop", PIN)},
        ),  # not a device's certificate: the password decides
    ],
)
def test_certificates(account: Device, asked: dict[str, Any]) -> None:
    """A certificate with the device's id suffices; if the registry has a fingerprint, it must match."""
    found = known(account).authenticate_device(request(**asked), NOW_S)
    assert isinstance(found, Authenticated)
    assert found.device == ID


def test_a_signed_token_expires() -> None:
    """A signed token authenticates its device until the token expires, as does the connection."""
    authenticator = known(device(valid_from=NOW_S))
    found = authenticator.authenticate_device(request(password=signed()), NOW_S + 59)
    assert isinstance(found, Authenticated)
    assert found.expires_s == NOW_S + 60
    assert authenticator.authenticate_device(request(password=signed()), NOW_S + 60) == "password"


def test_a_paused_device() -> None:
    """A paused device may connect and subscribe, and publish only answers to commands."""
    found = known(device(status="paused")).authenticate_device(request(), NOW_S)
    assert isinstance(found, Authenticated)
    assert found.permissions.publish == (f"headcount.ul.person.{ID}.ack",)


def test_permissions_follow_the_registry() -> None:
    """The topics of a device follow from the registry, not from its request."""
    found = known(device(site="moon", kind="vehicle")).authenticate_device(request(), NOW_S)
    assert isinstance(found, Authenticated)
    mine = ("headcount.moon.vehicle.", "fix.*.moon.vehicle.", "owntracks.")
    assert all(subject.startswith(mine) and ID in subject for subject in found.permissions.publish)


def test_before_the_registry_is_read() -> None:
    """Before the registry has been read, all clients are refused."""
    authenticator = DeviceAuthenticator(KEY)
    assert authenticator.authenticate_device(request(), NOW_S) == "starting"
    assert authenticator.authenticate_program(request(user="token"), token(), NOW_S) == "starting"


def test_a_device_of_a_removed_site() -> None:
    """A device of a site that is removed, or was never counted, is refused, and its connection does not stay."""
    authenticator = known(device())
    accepted = authenticator.authenticate_device(request(), NOW_S)
    assert isinstance(accepted, Authenticated)
    authenticator.sites = {"ul": NOW_S + 5, "harbour": math.inf}
    assert authenticator.authenticate_device(request(), NOW_S + 4.9) == accepted
    assert authenticator.is_still_valid(accepted.name, HERE, NOW_S + 4.9)
    assert authenticator.authenticate_device(request(), NOW_S + 5) == "site"
    assert not authenticator.is_still_valid(accepted.name, HERE, NOW_S + 5)
    authenticator.sites = {"harbour": math.inf}
    assert authenticator.authenticate_device(request(), NOW_S) == "site"
    assert authenticator.authenticate_device(request(password=ANOTHER), NOW_S) == "password"


def test_guessing_reasons() -> None:
    """Only reasons that may mean guessing count against an address."""
    assert set(GUESSING_REASONS) < set(REFUSAL_REASONS)
    assert not GUESSING_REASONS & {"banned", "client-id", "status", "site", "starting", "protocol"}


# --- programs --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("role", ACCESS_ROLES)
def test_programs(role: AccessRole) -> None:
    """A program gets its role's permissions on its token's sites until the token expires, and publishes nothing."""
    asked = request(user="token", client_id="t2-any name")
    found = known().authenticate_program(asked, token(role, sites=["ul"], expires=NOW_S + 5), NOW_S)
    assert isinstance(found, Authenticated)
    assert (found.name, found.device, found.expires_s) == ("token.t2", None, NOW_S + 5)
    assert found.permissions == permissions.program_permissions(role, ("ul",))
    assert not found.permissions.publish
    assert ("headcount.ul.exact.>" in found.permissions.subscribe) == (role != "public")
    assert ("headcount.ul.events.>" in found.permissions.subscribe) == (role in {"operator", "admin"})


@pytest.mark.parametrize(
    ("scopes", "topics"),
    [
        ([], {"counts", "site", "exact", "events"}),
        (["system:read"], {"counts", "site"}),
        (["counts:exact"], {"counts", "site", "exact"}),
        (["events:read", "devices:read"], {"counts", "site", "events"}),
    ],
)
def test_scopes_of_programs(scopes: list[str], topics: set[str]) -> None:
    """A token with some scopes may subscribe to no more over MQTT than it may read over HTTP."""
    found = known().authenticate_program(
        request(user="token", client_id="t2"), token("operator", sites=["ul"], scopes=scopes), NOW_S
    )
    assert isinstance(found, Authenticated)
    assert {subject.split(".")[2] for subject in found.permissions.subscribe} == topics


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
def test_refused_programs(fields: dict[str, Any], found: ApiToken | None, reason: RefusalReason) -> None:
    """A program without a valid token, or with the client id of a device or another program, is refused."""
    assert (
        known(device()).authenticate_program(
            request(**{"user": "token", "client_id": "t2"} | fields), found, NOW_S
        )
        == reason
    )


# --- bans ------------------------------------------------------------------------------------------------
def test_a_banned_device() -> None:
    """A banned device is refused and its connections are invalid until the ban ends or is lifted; others are not affected."""
    authenticator = known(device(), device(id=OTHER))
    name = authenticator.authenticate_device(request(), NOW_S)
    assert isinstance(name, Authenticated)
    ban(authenticator, ID, NOW_S + 10)
    assert authenticator.authenticate_device(request(), NOW_S) == "banned"
    assert not authenticator.is_still_valid(name.name, HERE, NOW_S)
    assert isinstance(
        authenticator.authenticate_device(request(user=OTHER, client_id=OTHER), NOW_S), Authenticated
    )
    assert isinstance(authenticator.authenticate_device(request(), NOW_S + 10), Authenticated)
    assert authenticator.is_still_valid(name.name, HERE, NOW_S + 10)
    authenticator.update_ban(ban_key(ID), None)
    assert isinstance(authenticator.authenticate_device(request(), NOW_S), Authenticated)


def test_guesses_at_a_banned_device_are_guesses() -> None:
    """A wrong password for a banned device is refused as a wrong password, and counts against the address."""
    authenticator = known(device())
    ban(authenticator, ID, NOW_S + 10)
    assert authenticator.authenticate_device(request(password=ANOTHER), NOW_S) == "password"


@pytest.mark.parametrize("address", [HERE, ELSEWHERE])
def test_a_banned_address(address: str) -> None:
    """Devices and programs are refused from a banned address, and accepted from others."""
    authenticator = known(device())
    found = authenticator.authenticate_device(request(), NOW_S)
    assert isinstance(found, Authenticated)
    authenticator.replace_bans(
        {ban_key(address): msgspec.json.encode(Ban(NOW_S + 10, "")), "device.x": b"broken"}
    )
    assert authenticator.authenticate_device(request(address=address), NOW_S) == "banned"
    assert authenticator.authenticate_program(request(address=address), token(), NOW_S) == "banned"
    assert not authenticator.is_still_valid(found.name, address, NOW_S)
    assert isinstance(authenticator.authenticate_device(request(address="192.0.2.99"), NOW_S), Authenticated)
    assert isinstance(authenticator.authenticate_device(request(address=address), NOW_S + 10), Authenticated)


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
def test_changed_permissions_close_connections(fields: dict[str, Any]) -> None:
    """Each field that affects permissions changes the connection name, and connections of the old name are closed."""
    authenticator = known(device())
    found = authenticator.authenticate_device(request(), NOW_S)
    assert isinstance(found, Authenticated)
    changed = msgspec.structs.replace(device(secret=""), **({"secret": "x"} | fields))
    assert authenticator.update_device(DEVICE_KEY.format(id=ID), msgspec.json.encode(changed)) == found.name
    assert not authenticator.is_still_valid(found.name, HERE, NOW_S)


def test_a_label_closes_no_connection() -> None:
    """A change that does not affect permissions closes no connection."""
    account = device()
    authenticator = known(account)
    found = authenticator.authenticate_device(request(), NOW_S)
    assert isinstance(found, Authenticated)
    renamed = msgspec.structs.replace(account, label="Ada", groups=["staff"], firmware="2", changed=NOW_S)
    assert authenticator.update_device(DEVICE_KEY.format(id=ID), msgspec.json.encode(renamed)) is None
    assert authenticator.is_still_valid(found.name, HERE, NOW_S)


@pytest.mark.parametrize("value", [None, b"broken", msgspec.json.encode(device(id=OTHER))])
def test_a_removed_device(value: bytes | None) -> None:
    """A device that was removed, is unreadable, or has another's value under its key is unknown, and its connections are closed."""
    authenticator = known(device())
    found = authenticator.authenticate_device(request(), NOW_S)
    assert isinstance(found, Authenticated)
    assert authenticator.update_device(DEVICE_KEY.format(id=ID), value) == found.name
    assert authenticator.authenticate_device(request(), NOW_S) == "unknown"
    assert not authenticator.is_still_valid(found.name, HERE, NOW_S)
    assert len(authenticator) == 0


def test_the_registry_read_again() -> None:
    """A device that is missing when the registry is read again is unknown."""
    authenticator = known(device(), device(id=OTHER, gateway=True))
    assert (
        authenticator.is_gateway(OTHER),
        authenticator.is_gateway(ID),
        authenticator.is_gateway("unknown"),
    ) == (True, False, False)
    authenticator.replace_devices({DEVICE_KEY.format(id=OTHER): msgspec.json.encode(device(id=OTHER))})
    assert authenticator.authenticate_device(request(), NOW_S) == "unknown"
    assert isinstance(
        authenticator.authenticate_device(request(user=OTHER, client_id=OTHER), NOW_S), Authenticated
    )


# --- verified passwords ----------------------------------------------------------------------
@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collects every password that is hashed."""
    seen: list[str] = []
    matches = credentials.verify_secret

    def counted(secret: str, hash_: str) -> bool:
        seen.append(secret)
        return matches(secret, hash_)

    monkeypatch.setattr(credentials, "verify_secret", counted)
    return seen


def test_a_password_is_hashed_once(hashes: list[str]) -> None:
    """A verified password is not hashed again; a wrong one always is."""
    authenticator = known(device())
    for _ in range(3):
        assert isinstance(authenticator.authenticate_device(request(), NOW_S), Authenticated)
    assert hashes == [SECRET]
    for _ in range(2):
        assert authenticator.authenticate_device(request(password=ANOTHER), NOW_S) == "password"
    assert isinstance(authenticator.authenticate_device(request(), NOW_S), Authenticated)
    assert hashes == [SECRET, ANOTHER, ANOTHER]


@pytest.mark.parametrize("whole", [False, True])
def test_a_new_secret_replaces_the_old_one(hashes: list[str], *, whole: bool) -> None:
    """After a change, or when the registry is read again, the old password is wrong although it was cached."""
    authenticator = known(device())
    assert isinstance(authenticator.authenticate_device(request(), NOW_S), Authenticated)
    changed = msgspec.json.encode(device(secret=credentials.hash_secret(ANOTHER)))
    if whole:
        authenticator.replace_devices({DEVICE_KEY.format(id=ID): changed})
    else:
        authenticator.update_device(DEVICE_KEY.format(id=ID), changed)
    assert authenticator.authenticate_device(request(), NOW_S) == "password"
    assert isinstance(authenticator.authenticate_device(request(password=ANOTHER), NOW_S), Authenticated)
    assert hashes == [SECRET, SECRET, ANOTHER]


def test_the_cache_is_bounded(hashes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of verified passwords is bounded; the oldest is hashed again."""
    monkeypatch.setattr(authentication, "MAX_VERIFIED", 1)
    authenticator = known(device(), device(id=OTHER))
    for who in (ID, OTHER, OTHER, ID):
        assert isinstance(
            authenticator.authenticate_device(request(user=who, client_id=who), NOW_S), Authenticated
        )
    assert len(hashes) == 3


def test_an_unknown_id_costs_as_much(hashes: list[str]) -> None:
    """An unknown id is hashed, too, so that the response time does not reveal registered ids."""
    authenticator = known(device())
    assert authenticator.authenticate_device(request(user=OTHER), NOW_S) == "unknown"
    assert authenticator.authenticate_device(request(user=OTHER, password="x" * 5000), NOW_S) == "unknown"
    assert len(hashes) == 2

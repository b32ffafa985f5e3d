"""Messages of OwnTracks, by generation of the app, and the table of the guide."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from case_files import case_json
from headcount.adapters.translator import decode_shipped
from headcount.decoders import owntracks
from headcount.decoders.canonical import CanonicalMessage, Outcome
from headcount.decoders.device_aliases import AliasResolver
from headcount.decoders.payload_keys import PayloadKeys, encrypt
from headcount.decoding import Decoded, DecodedFix, DecodedStatus, DecodeError, Ignored, Message
from headcount.devices.registry_cache import RegistryCache
from headcount.messages.records import Device

ROOT = Path(__file__).parents[2]
SECRET = "the secret of a deployment"  # noqa: S105  # of no other than this
ID = "k7wqz2mfa5ujxh3teyn4"
KEY = "the key of a phone"
PAYLOADS: dict[str, dict[str, Any]] = case_json("owntracks.json")


def decoded(payload: Any, topic: str = "owntracks/jane/phone") -> list[Decoded]:
    """The results of a message."""
    return owntracks.decode(json.dumps(payload).encode(), Message(topic, 0.0))


@pytest.mark.parametrize("name", [name for name in PAYLOADS if "location" in name or "transition" in name])
def test_positions_of_all_generations_become_fixes(name: str) -> None:
    """Each location and transition of each generation of the apps is a fix at the position's own time."""
    payload = PAYLOADS[name]
    [fix] = decoded(payload)
    assert isinstance(fix, DecodedFix)
    assert (fix.name, fix.t, fix.lat, fix.lon) == (
        "jane/phone",
        float(payload["tst"]),
        float(payload["lat"]),
        float(payload["lon"]),
    )
    assert fix.acc == (float(payload["acc"]) if "acc" in payload else None)


@pytest.mark.parametrize("trigger", [*"pcbrutvCfmTklLoM!aiIeE1239hs", "", "new"])
def test_each_trigger_is_a_fix(trigger: str) -> None:
    """A location is a fix, whatever its trigger is, also one of a later version."""
    [fix] = decoded({"_type": "location", "lat": 1, "lon": 2, "tst": 3, "created_at": 9, "t": trigger})
    assert isinstance(fix, DecodedFix)
    assert fix.t == 3


def test_the_table_of_the_guide_is_true() -> None:
    """The guide has a row for each type that the apps send, and the decoder does what the row states."""
    text = (ROOT / "docs" / "guides" / "owntracks.md").read_text().split("\n## Messages\n")[1]
    rows = dict(re.findall(r"^\| `([a-z]+)` \| ([a-z ]+) \|$", text, re.MULTILINE))
    assert rows.keys() >= {payload["_type"] for payload in PAYLOADS.values()}
    assert rows.keys() == {"location", "transition", "lwt"} | owntracks.TYPES_WITHOUT_POSITION
    for type_, result in rows.items():
        [outcome] = decoded({"_type": type_, "lat": 1, "lon": 2, "tst": 3})
        match result:
            case "fix":
                assert isinstance(outcome, DecodedFix)
            case "status":
                assert isinstance(outcome, DecodedStatus)
                assert not outcome.online
            case "ignored" | "decrypted first":
                assert outcome == Ignored(type_)
            case _:
                raise AssertionError(result)


@pytest.mark.parametrize("name", PAYLOADS)
def test_no_message_of_the_apps_is_rejected(name: str) -> None:
    """Each message of the apps is decoded or ignored, alone and in an array."""
    for payload in (PAYLOADS[name], [PAYLOADS[name]] * 3):
        assert not [each for each in decoded(payload) if isinstance(each, DecodeError)]


# --- encryption ----------------------------------------------------------------------------------
def names(payload_key: str) -> AliasResolver:
    """A registry with one phone."""
    directory = RegistryCache()
    directory.put(
        Device(id=ID, site="ul", kind="person", payload_key=payload_key, aliases=["owntracks/jane/phone"])
    )
    return AliasResolver(SECRET, directory, "ul")


def outcomes(payload: bytes, payload_key: str, user: str = ID) -> list[Outcome]:
    """The outcomes of a message of the phone."""
    resolver = names(payload_key)
    format_, found = decode_shipped(payload, Message(f"owntracks/{user}/phone", 0.0), resolver)
    assert format_ == "owntracks"
    return [resolver.outcome(format_, each) for each in found]


LOCATION = b'{"_type":"location","lat":52.67,"lon":-8.57,"tst":1700000000}'


def test_encrypted_messages_are_translated() -> None:
    """A phone with a key sends fixes and arrays by its id and by its alias; its last will may be plain."""
    key, sealed = KEY, PayloadKeys(SECRET).seal(KEY)
    for user in (ID, "jane"):
        [fix] = outcomes(encrypt(LOCATION, key), sealed, user)
        assert isinstance(fix, CanonicalMessage)
        assert fix.sender == ("ul", "person", ID)
        assert len(outcomes(encrypt(b"[" + LOCATION + b"," + LOCATION + b"]", key), sealed, user)) == 2
    will = b'{"_type":"lwt","tst":1700000000}'
    for payload in (will, encrypt(will, key)):
        [status] = outcomes(payload, sealed)
        assert isinstance(status, CanonicalMessage)
        assert status.payload == b"offline"


def test_messages_without_the_key_are_rejected() -> None:
    """Plain, truncated, nested and foreign messages of a phone with a key are rejected, each with its reason."""
    key, sealed = KEY, PayloadKeys(SECRET).seal(KEY)
    good = encrypt(LOCATION, key)
    for payload, reason in (
        (LOCATION, "not_encrypted"),
        (b"", "not_encrypted"),
        (b"\xff" * 70_000, "not_encrypted"),
        (good[:60] + good[80:], "not_decrypted"),
        (encrypt(LOCATION, "another key"), "not_decrypted"),
        (b'{"_type":"encrypted"}', "not_decrypted"),
        (encrypt(b"not JSON", key), "not_json"),
        (encrypt(b"7", key), "not_an_object"),
    ):
        [rejected] = outcomes(payload, sealed)
        assert isinstance(rejected, DecodeError)
        assert rejected.label == reason
    assert outcomes(encrypt(good, key), sealed) == [Ignored("encrypted")]


def test_encrypted_messages_without_a_known_key_are_ignored() -> None:
    """Encrypted messages of a phone that has no key, or is not registered, are ignored."""
    assert outcomes(encrypt(LOCATION, "its own key"), "") == [Ignored("encrypted")]
    assert outcomes(encrypt(LOCATION, "its own key"), "", "joe") == [Ignored("encrypted")]

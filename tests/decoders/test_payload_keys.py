"""Keys of encrypted messages: as OwnTracks encrypts, sealed in the registry."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_secretbox

from headcount.decoders.payload_keys import PayloadKeys, decrypt, encrypt
from headcount.decoding import DecodeError
from headcount.devices.credentials import new_secret

KEYS = PayloadKeys("a deployment's secret")
NONCE = bytes(range(24))


def as_the_apps(payload: bytes, passphrase: str) -> bytes:
    """A message as the apps encrypt it: nonce and box in Base64, with a key of 32 bytes."""
    key = (passphrase.encode() + bytes(32))[:32]
    data = base64.b64encode(NONCE + crypto_secretbox(payload, NONCE, key)).decode()
    return json.dumps({"_type": "encrypted", "data": data, "tid": "ab"}).encode()


@pytest.mark.parametrize("passphrase", ["s", "mysecreTpass01", "ä" * 16, "x" * 32, "y" * 80])
def test_messages_of_the_apps_are_decrypted(passphrase: str) -> None:
    """Each message is decrypted that the apps encrypt, and each one that is encrypted here has their form."""
    data = json.loads(as_the_apps(b'{"_type":"location"}', passphrase))["data"]
    assert decrypt(data, passphrase) == b'{"_type":"location"}'
    ours = json.loads(encrypt(b"[]", passphrase))
    assert ours.keys() == {"_type", "data"}
    assert decrypt(ours["data"], passphrase) == b"[]"


def test_a_known_message() -> None:
    """A message that was encrypted once is decrypted by each later version."""
    assert decrypt("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXL+nsubG+Vo5OgPfH4ZI+AvuJ", "mysecreTpass01") == b"[]"


@pytest.mark.parametrize(
    "data",
    [
        None,
        7,
        ["AAAA"],
        "",
        "not Base64!",
        "ä",
        "AAAA",
        base64.b64encode(bytes(39)).decode(),
        base64.b64encode(bytes(40)).decode(),
        base64.b64encode(bytes(48_000)).decode(),
    ],
)
def test_damaged_messages(data: object) -> None:
    """Missing, truncated and damaged data is rejected without an exception of another kind."""
    with pytest.raises(DecodeError) as error:
        decrypt(data, "key")
    assert error.value.label == "not_decrypted"


@given(st.binary(max_size=200), st.text(max_size=40))
def test_any_payload_and_key(payload: bytes, key: str) -> None:
    """Any payload is decrypted with its key, and with no other."""
    data = json.loads(encrypt(payload, key))["data"]
    assert decrypt(data, key) == payload
    with pytest.raises(DecodeError):
        decrypt(data, "another" + key)


def test_sealed_keys() -> None:
    """A sealed key reveals nothing, and is of use with the deployment's secret only."""
    key = new_secret()
    sealed = KEYS.seal(key)
    assert len(key) == 32
    assert key.encode() not in base64.b64decode(sealed)
    message = encrypt(b"{}", key)
    assert KEYS.decrypt(message, sealed) == b"{}"
    assert KEYS.decrypt(KEYS.encrypt(b"[]", sealed), sealed) == b"[]"
    with pytest.raises(DecodeError):
        PayloadKeys("another secret").decrypt(message, sealed)


def test_a_device_with_a_key_must_encrypt() -> None:
    """With a key, plain messages are rejected except the last will; without one, all pass unchanged."""
    sealed = KEYS.seal("its key")
    for payload in (b'{"_type":"location"}', b"[]", b"", b"[" * 60_000, b'{"_type":["encrypted"]}'):
        with pytest.raises(DecodeError) as error:
            KEYS.decrypt(payload, sealed)
        assert error.value.label == "not_encrypted"
        assert KEYS.decrypt(payload, "") == payload
    will = b'{"_type":"lwt","tst":1}'
    assert KEYS.decrypt(will, sealed) == will

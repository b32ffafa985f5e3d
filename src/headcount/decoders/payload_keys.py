"""Keys with which devices encrypt their messages: made, sealed for the registry, and used.

A symmetric key must be readable where messages are decrypted, so a hash does not suffice as it does for
secrets. The registry has it sealed with a key that is derived from the deployment's secret: the bucket's files
alone reveal nothing, those files and the secret together reveal the keys.

Messages are encrypted as the app OwnTracks does: libsodium's secretbox (XSalsa20, Poly1305), whose key is the
UTF-8 of a text, padded with zeros or cut to 32 bytes; sent are nonce and ciphertext in Base64.

Source: OwnTracks booklet, features/encrypt.md; android `EncryptionProvider.kt`; ios `Connection.m`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any

import msgspec
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from headcount.decoding import DecodeError

ENCRYPTED_TYPE = "encrypted"


class PayloadKeys:
    """The keys of a deployment's devices, as the registry has them."""

    def __init__(self, secret: str) -> None:
        """Seal with a key derived from the deployment's secret."""
        key = hashlib.blake2b(b"payload keys", key=secret.encode()[:64], digest_size=SecretBox.KEY_SIZE)
        self._box = SecretBox(key.digest())

    def seal(self, key: str) -> str:
        """The sealed key, for the registry."""
        return base64.b64encode(self._box.encrypt(key.encode())).decode()

    def encrypt(self, payload: bytes, sealed: str) -> bytes:
        """A payload as a device with this sealed key reads it; "" = it has none.

        Raises:
            DecodeError: `not_decrypted`, the key was sealed with the secret of another deployment.
        """
        return encrypt(payload, self._open(sealed)) if sealed else payload

    def decrypt(self, payload: bytes, sealed: str) -> bytes:
        """The payload of a message of a device with this sealed key, decrypted if there is one.

        A device with a key must encrypt: a person who knows only its password could send positions otherwise. Its
        last will is accepted as it is, since the iOS app does not encrypt it.

        Raises:
            DecodeError: `not_encrypted` although there is a key, or `not_decrypted`.
        """
        if not sealed:
            return payload
        try:
            message = msgspec.json.decode(payload)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            message = None
        kind = message.get("_type") if isinstance(message, dict) else None
        if kind == ENCRYPTED_TYPE:
            return decrypt(message.get("data"), self._open(sealed))
        if kind == "lwt":
            return payload
        raise DecodeError("not_encrypted", "the device has a key, and the message is not encrypted")

    def _open(self, sealed: str) -> str:
        try:
            return self._box.decrypt(base64.b64decode(sealed, validate=True)).decode()
        except (CryptoError, ValueError) as error:
            raise _not_decrypted("its key was sealed with another secret") from error


def encrypt(payload: bytes, key: str) -> bytes:
    """The message of the type `encrypted` that contains a payload."""
    data = base64.b64encode(_box(key).encrypt(payload)).decode()
    return msgspec.json.encode({"_type": ENCRYPTED_TYPE, "data": data})


def decrypt(data: Any, key: str) -> bytes:
    """The payload in the field `data` of a message of the type `encrypted`.

    Raises:
        DecodeError: `not_decrypted`, it is not Base64 of a nonce and a ciphertext, or was encrypted with another key.
    """
    if not isinstance(data, str):
        raise _not_decrypted("data is missing, or is not a text")
    try:
        raw = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise _not_decrypted("data is not Base64") from None
    if len(raw) < SecretBox.NONCE_SIZE + SecretBox.MACBYTES:
        raise _not_decrypted("data is too short: it has no nonce, or no authentication code")
    try:
        return _box(key).decrypt(raw)
    except CryptoError:
        raise _not_decrypted("it was encrypted with another key, or is damaged") from None


def _not_decrypted(problem: str) -> DecodeError:
    return DecodeError("not_decrypted", problem)


def _box(key: str) -> SecretBox:
    return SecretBox(key.encode()[: SecretBox.KEY_SIZE].ljust(SecretBox.KEY_SIZE, b"\0"))

"""Phones with the app OwnTracks: their commands and answers, encrypted for those that have a key."""

from __future__ import annotations

from typing import Any

import msgspec

from headcount.decoders.payload_keys import PayloadKeys
from headcount.decoding import DecodeError
from headcount.devices.owntracks_commands import answered_s, is_owntracks, owntracks_messages
from headcount.messages.records import DEVICE_KEY, Device, DeviceCommand, decode_or_none
from headcount.messaging.kv import KvBucket


class OwnTracksPhones:
    """Encodes commands for phones, and decodes their answers."""

    def __init__(self, devices: KvBucket, secret: str) -> None:
        """Look phones up in the bucket DEVICE of the deployment with this secret."""
        self._devices = devices
        self._keys = PayloadKeys(secret)

    async def get(self, id_: str) -> Device | None:
        """The registered device with this id, if its app is OwnTracks.

        Raises:
            LogError: NATS does not answer.
        """
        entry = await self._devices.get(DEVICE_KEY.format(id=id_))
        device = None if entry is None else decode_or_none(entry.value, Device)
        return device if device is not None and is_owntracks(device) else None

    def command_payloads(self, command: DeviceCommand, phone: Device, mode: int) -> list[bytes]:
        """The payloads of the MQTT messages that have a phone execute a command."""
        return [self._sealed(message, phone) for message in owntracks_messages(command, mode)]

    def reply(self, commands: list[DeviceCommand], phone: Device, mode: int) -> bytes:
        """The reply to an HTTP request of a phone: an array with all messages of some commands."""
        return self._sealed(
            [each for command in commands for each in owntracks_messages(command, mode)], phone
        )

    def answered_s(self, payload: bytes, phone: Device) -> float | None:
        """When a phone made the last requested location in a payload; None: there is none."""
        try:
            return answered_s(self._keys.decrypt(payload, phone.payload_key))
        except DecodeError:
            return None

    def _sealed(self, message: Any, phone: Device) -> bytes:
        return self._keys.encrypt(msgspec.json.encode(message), phone.payload_key)

"""The HTTP mode of OwnTracks: messages of a phone in, its waiting commands out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from headcount.decoders import owntracks
from headcount.decoders.payload_keys import PayloadKeys
from headcount.decoding import Decoded, DecodeError, Message
from headcount.devices.commands import OPEN_STATES, CommandStore
from headcount.devices.owntracks_commands import (
    HTTP_MODE,
    RESEND_PAUSE_S,
    answered_s,
    is_answered,
    publish_topic,
)
from headcount.devices.owntracks_phones import OwnTracksPhones
from headcount.errors import LogError
from headcount.messages.commands import CommandAck
from headcount.messages.records import Device, DeviceCommand
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import DEVICE_BUCKET
from headcount.services.ingest import IngestService, Receipt

#: The times at which commands were sent are forgotten when there are more; a phone then gets one again too early.
MAX_SENT = 10_000
NO_MESSAGES = b"[]"


class OwnTracksService:
    """Answers the requests of phones."""

    def __init__(
        self,
        ingest: IngestService,
        commands: CommandStore,
        connection: Connection,
        secret: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Store positions by `ingest`, and answer with commands; the deployment's secret opens keys."""
        self._ingest = ingest
        self._commands = commands
        self._phones = OwnTracksPhones(KvBucket(connection, DEVICE_BUCKET), secret)
        self._keys = PayloadKeys(secret)
        self._clock = clock
        self._sent_s: dict[str, float] = {}  # by id of the command

    def decode(self, phone: Device, body: bytes) -> tuple[bytes, list[Decoded]]:
        """Return the decrypted body of a request, and its content; of an invalid one, the error."""
        try:
            payload = self._keys.decrypt(body, phone.payload_key)
            return payload, owntracks.decode(payload, Message(publish_topic(phone.id), self._clock()))
        except DecodeError as error:
            return b"", [error]

    async def store(self, phone: Device, decoded: Sequence[Decoded]) -> list[Receipt]:
        """Store the positions of a request; return a receipt for each part of it.

        Raises:
            LogError: the log has not acknowledged all of them.
        """
        return await self._ingest.store(phone, decoded)

    async def reply(self, phone: Device, payload: bytes) -> bytes:
        """Record the answer to commands in a decrypted body, and return the reply: the commands that wait.

        Positions are stored already, so an error here must not have the phone send them again.
        """
        with contextlib.suppress(LogError, DecodeError):  # the next reply has the commands
            waiting = [each for each in await self._commands.of(phone.id) if each.state in OPEN_STATES]
            due = await self._due(waiting, answered_s(payload) if waiting else None)
            if due:
                return self._phones.reply(due, phone, HTTP_MODE)
        return NO_MESSAGES

    async def _due(self, waiting: list[DeviceCommand], answer_s: float | None) -> list[DeviceCommand]:
        now_s = self._clock()
        due = []
        for command in reversed(waiting):  # oldest first
            if command.sent is not None and answer_s is not None and is_answered(command.sent, answer_s):
                ack = CommandAck(command.id)
                await self._commands.record_answer(command.site, command.kind, command.device, ack, now_s)
            elif command.expires > now_s >= self._sent_s.get(command.id, 0.0) + RESEND_PAUSE_S:
                due.append(command)
                if len(self._sent_s) >= MAX_SENT:
                    self._sent_s.clear()
                self._sent_s[command.id] = now_s
                await self._commands.mark_sent(command, now_s)
        return due

"""By which name a device is spoken of where neither its id nor its label may stand: the day's pseudonym."""

from __future__ import annotations

import time

from nats.aio.client import Client

from headcount.counting.pseudonym_source import DAY_S
from headcount.devices.pseudonym_keys import PseudonymKeys
from headcount.devices.pseudonyms import Pseudonyms
from headcount.messages.topics import Kind


async def subject_of(client: Client, kind: Kind, id_: str) -> str:
    """The pseudonym of a device today, as events and history have it: 16 hexadecimal digits.

    Raises:
        LogError: the log doesn't answer.
    """
    day = int(time.time() // DAY_S)
    keys = PseudonymKeys(client, client.jetstream())
    await keys.need([day])
    return Pseudonyms(keys.keys).of(f"{kind}.{id_}".encode(), day)

"""Messages are stored in order for each subject, also when the broker is killed meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bridge_fixture import fix, logged, numbers
from headcount.messaging.appending import _rounds, append_in_order
from headcount.messaging.connection import connected
from headcount.messaging.jetstream import NewMessage
from nats_fixture import endpoint_of, open_broker

NUMBER = 300


async def test_the_order_holds_when_the_broker_is_killed(tmp_path: Path) -> None:
    """Each message is stored after those before it on its subject, although the broker is killed between them."""
    messages = [
        NewMessage(f"headcount.ul.person.{device}.fix", fix(number, 1e9 + number))
        for number in range(NUMBER)
        for device in "abc"
    ]
    async with open_broker(tmp_path) as broker, connected(endpoint_of(broker), "test") as connection:
        storing = asyncio.create_task(append_in_order(connection, messages, asyncio.Event()))
        for _ in range(3):
            await asyncio.sleep(0.05)
            assert broker.pid is not None
            os.kill(broker.pid, signal.SIGKILL)
            await asyncio.sleep(1.0)
        assert await storing
        found = await logged(broker)
    for device in "abc":
        assert list(dict.fromkeys(numbers(found[f"ul.person.{device}"]))) == list(range(NUMBER))


@given(st.lists(st.sampled_from("abcd")))
def test_no_message_is_published_before_an_earlier_one_is_stored(subjects: list[str]) -> None:
    """A round has one message of each subject at most, and the rounds have all messages in order."""
    messages = [NewMessage(subject, str(number).encode()) for number, subject in enumerate(subjects)]
    rounds = _rounds(messages)
    assert all(len({message.subject for message in one}) == len(one) for one in rounds)
    for subject in "abcd":
        published = [message for one in rounds for message in one if message.subject == subject]
        assert published == [message for message in messages if message.subject == subject]

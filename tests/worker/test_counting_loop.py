"""The instants at which a worker counts, the ticks that it writes, and the messages with its counts."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import msgspec
import pytest
from nats.aio.msg import Msg

import nats_fixture
from headcount.messages.counts import PartitionCounts, decode_counts, encode_counts
from headcount.messages.times import HISTORY_TICK_S, TICK_S, effect_tick
from headcount.messages.topics import INTERNAL
from headcount.messaging.connection import Endpoint
from headcount.messaging.mqtt_address import MqttAddress
from headcount.worker.counting_loop import QUIET_S, QUIET_STEP, STEPS, Pace
from headcount.worker.loops import WorkerSettings, run
from small_site import small_site
from waiting import until

PARTITIONS = 4


def test_instants_of_all_paces_coincide() -> None:
    """A worker counts more often under load, at instants that include those of every slower worker."""
    pace, now_s = Pace(), 1_790_000_000.0
    assert pace.step(now_s) == QUIET_STEP
    pace.wake(now_s, 1)
    assert pace.step(now_s) == STEPS[0][1]
    for rate, step in ((100, STEPS[0][1]), (2_500, STEPS[1][1]), (10_000, STEPS[2][1])):
        for _ in range(40):
            now_s += 0.3
            pace.wake(now_s, round(0.3 * rate))
            found = pace.step(now_s)
        assert found == step
    assert pace.step(now_s + 2) == QUIET_STEP
    steps = [*(step for _, step in reversed(STEPS)), QUIET_STEP]
    assert all(slower % faster == 0 for faster, slower in itertools.pairwise(steps))
    assert round(HISTORY_TICK_S / TICK_S) % QUIET_STEP == 0
    assert effect_tick(1_790_000_000.33) % STEPS[0][1] == 0


def test_counts_of_several_partitions_are_one_message() -> None:
    """A message decodes to the counts that were encoded, and a damaged one is refused."""
    counts = [PartitionCounts("s", number, 8, 3, number, 5.0, 2, 2, bytes(range(64))) for number in (2, 5)]
    payload = encode_counts(counts)
    assert decode_counts(payload) == counts
    short = encode_counts([msgspec.structs.replace(each, values=b"1") for each in counts])
    for damaged in (b"", payload[:-9], short):
        with pytest.raises(msgspec.MsgspecError):
            decode_counts(damaged)


async def test_a_quiet_log_gets_few_ticks(tmp_path: Path) -> None:
    """Without fixes, each instant has one message with the counts of all partitions, and ticks are rare.

    Only the first second after a worker acquired partitions is counted at the pace of fixes.
    """
    async with nats_fixture.open_broker(tmp_path, partitions=PARTITIONS) as broker:
        config, client = broker.config, await nats_fixture.internal_client(broker)
        instants: list[tuple[float, int]] = []

        async def receive(message: Msg) -> None:
            counts = decode_counts(message.data)
            instants.append((counts[0].at, len(counts)))

        await client.subscribe("count.*.*", cb=receive)
        endpoint = Endpoint((("127.0.0.1", config.nats_port),), INTERNAL, config.password)
        mqtt = [MqttAddress("127.0.0.1", config.mqtt_port, INTERNAL, config.password)]
        stop = asyncio.Event()
        worker = asyncio.create_task(run(WorkerSettings(small_site(), endpoint, mqtt, PARTITIONS), stop))
        await until(lambda: any(number == PARTITIONS for _, number in instants), "the first counts of all")
        first = instants[-1][0]
        await until(lambda: instants[-1][0] - first >= QUIET_S + 5 * QUIET_STEP * TICK_S, "quiet instants")
        # where a tick took too long, an instant lacks its partition
        assert sum(number == PARTITIONS for at_s, number in instants if at_s > first) >= 5
        last = instants[-1][0]
        for number in range(PARTITIONS):
            ticks = (await client.jetstream().stream_info(f"FIX_{number}")).state.messages
            # a tick that took long may be written again
            assert ticks <= 2 * (
                (last - first) / (QUIET_STEP * TICK_S) + 3 + QUIET_S / (STEPS[0][1] * TICK_S)
            )
        stop.set()
        await worker
        await client.close()

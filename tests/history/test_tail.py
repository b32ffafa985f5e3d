"""Rows that are not yet in a segment are in every answer, and once only."""

from __future__ import annotations

from pathlib import Path

from headcount.history import count_queries, queries
from headcount.history.reader import HistoryView, SegmentReader
from headcount.messaging.connection import Connection
from headcount.services.history import HistoryQueries
from headcount.services.history_tail import HistoryTail
from history.test_writer import objects, publish, sent, writing
from history_batches import T0, batch, segment_files, values
from nats_fixture import internal_client, open_broker
from waiting import until


def everything(view: HistoryView) -> list[tuple[str, float, float]]:
    """All fixes of the site."""
    found = queries.fixes(view, site="ul", limit=100_000)
    return sorted((fix.device, fix.t, fix.lat) for fix in found)


async def test_each_row_is_in_each_answer_once(tmp_path: Path) -> None:
    """While batches are sent and a writer commits, a query finds all rows that the stream has, each once."""
    partitions = 2
    parts, batches = sent(5, partitions, 60)
    async with open_broker(tmp_path, partitions=partitions) as broker:
        client = await internal_client(broker)
        reader = SegmentReader(objects(tmp_path / "data"))
        answers = HistoryQueries(1, reader, HistoryTail(Connection(client), partitions))
        expected: set[tuple[int, int]] = set()
        rows = {
            (number, row.seq): (row.device, row.t, row.lat)
            for number, part in enumerate(parts)
            for row in part
        }
        async with writing(broker, tmp_path / "data", 0.05) as (sender, stats):
            for number, one in enumerate(batches):
                await publish(sender, one)
                if number == len(batches) // 2:
                    await until(lambda: stats.flushes > 0, "a flush")
                if one.fixes is not None:
                    seqs = memoryview(one.fixes.seq).cast("q")
                    expected |= {(one.partition, seq) for seq in seqs}
                assert await answers.run(everything) == sorted({rows[key] for key in expected})
        answers.close()
        await client.close()


async def test_counts_are_answered_before_they_are_stored(tmp_path: Path) -> None:
    """An instant of which one partition is in a segment, and the other one in the stream, is complete."""
    async with open_broker(tmp_path, partitions=2) as broker:
        client = await internal_client(broker)
        reader = SegmentReader(objects(tmp_path / "data"))
        answers = HistoryQueries(1, reader, HistoryTail(Connection(client), 2))

        def at(view: HistoryView) -> float | None:
            found = count_queries.counts_at(view, T0 + 60, site="ul")
            return None if found is None else found[0]

        async with writing(broker, tmp_path / "data"):
            await publish(client, batch(0, counts=[(T0, values(2, 0))], partitions=2))
            await until(lambda: segment_files(tmp_path / "data", "counts"), "a segment")
            assert await answers.run(at) is None
        await publish(client, batch(1, counts=[(T0, values(2, 0))], partitions=2))
        assert await answers.run(at) == T0
        answers.close()
        await client.close()

"""The audit log: one chain from many writers; whatever is done to it without the secret is found."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from nats.aio.client import Client

from headcount.access.audit_log import MAX_TEXT, NEARLY_FULL, AuditLog, _StreamState
from headcount.cli import main
from headcount.errors import AuditError, LogError
from headcount.messages.topics import AUDIT_STREAM
from headcount.messaging.connection import Connection
from nats_fixture import PASSWORD, internal_client, open_broker, running_broker


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[Client, AuditLog]]:
    """A client of a real broker with all rights, and the audit log there."""
    async with open_broker(folder) as broker:
        client = await internal_client(broker)
        yield client, AuditLog(Connection(client), PASSWORD)
        await client.close()


async def test_many_writers_keep_one_chain(tmp_path: Path) -> None:
    """Entries of several concurrent writers are numbered without gaps, and the log verifies."""
    async with opened(tmp_path) as (client, _):
        writers = [AuditLog(Connection(client), PASSWORD) for _ in range(4)]
        numbers = await asyncio.gather(
            *(writers[n % 4].record("device.add", f"token {n}", "x", {"n": n}) for n in range(40))
        )
        assert sorted(numbers) == list(range(1, 41))
        seen: list[tuple[int, int]] = []
        checked = await writers[0].verify(on_progress=lambda done, of: seen.append((done, of)))
        assert (checked.intact, checked.entries, checked.first) == (True, 40, 1)
        assert seen[-1] == (40, 40)


async def test_a_writer_that_comes_first_into_an_empty_log_is_followed(tmp_path: Path) -> None:
    """A first entry that another writer adds while this one examines the empty log gets its successor."""
    async with opened(tmp_path) as (client, other):

        class Slow(AuditLog):
            async def _state(self) -> _StreamState:
                if not (await other.entries())[0]:
                    await other.record("a.b", "first")
                return await super()._state()

        assert await Slow(Connection(client), PASSWORD).record("a.b", "second") == 2
        assert (await other.verify()).intact


async def test_entries_are_listed_newest_first_and_by_action(tmp_path: Path) -> None:
    """Pages hold the newest first, go on where they ended, and a group of actions chooses its own."""
    async with opened(tmp_path) as (_, audit):
        assert await audit.entries() == ([], None)
        for n in range(7):
            await audit.record("device.add" if n % 2 else "positions.read", "command line", str(n))
        page, more = await audit.entries(limit=3)
        assert [entry.subject for entry in page] == ["6", "5", "4"]
        page, more = await audit.entries(before=more, limit=10)
        assert ([entry.n for entry in page], more) == ([4, 3, 2, 1], None)
        page, more = await audit.entries(action="device")
        assert ([entry.subject for entry in page], more) == (["5", "3", "1"], None)
        page, more = await audit.entries(action="device", limit=2)
        page, more = await audit.entries(action="device", limit=2, before=more)
        assert ([entry.subject for entry in page], more) == (["1"], None)
        assert (await audit.entries(action="dev"))[0] == []


async def test_what_is_too_long_is_cut_and_actions_are_names(tmp_path: Path) -> None:
    """A long text is written down in part; an action that isn't a dotted name is refused."""
    async with opened(tmp_path) as (_, audit):
        await audit.record("a.b", "x" * 10_000, "\ud800", {f"k{n}": "v" * 10_000 for n in range(100)})
        (entry,), _ = await audit.entries()
        assert len(entry.actor) == MAX_TEXT
        assert sum(len(str(value)) for value in entry.detail.values()) <= 16 * MAX_TEXT
        assert (await audit.verify()).intact
        for action in ("", "A.b", "a..b", "a.>", "a b", "a." * 9 + "a"):
            with pytest.raises(ValueError, match="not an action"):
                await audit.record(action, "x")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"actor": "somebody else"}, "changed"),
        ({"detail": {"reason": "lunch"}}, "changed"),
        ({"n": 4}, "changed"),
        ({}, "moved"),
        (None, "is not an entry"),
    ],
)
async def test_what_is_written_without_the_secret_is_found(
    tmp_path: Path, change: dict[str, object] | None, found: str
) -> None:
    """An entry that was put into the stream past us is named, be it new, changed or an old one again."""
    async with opened(tmp_path) as (client, audit):
        for n in range(3):
            await audit.record("token.add", "command line", str(n), {"reason": "work"})
        js = client.jetstream()
        genuine = json.loads((await js.get_msg(AUDIT_STREAM, 2)).data or b"")
        forged = (
            b"nothing"
            if change is None
            else json.dumps(genuine | change, sort_keys=True, separators=(",", ":")).encode()
        )
        await js.publish("audit.token.add", forged)
        await audit.record("token.add", "command line", "later")
        checked = await audit.verify()
        assert not checked.intact
        assert checked.problems[0].entry == 4
        assert found in str(checked.problems[0])
        assert checked.entries == 5


async def test_another_secret_can_neither_write_nor_verify(tmp_path: Path) -> None:
    """Without the deployment's secret an entry is a forgery, even written by our own code."""
    async with opened(tmp_path) as (client, audit):
        await audit.record("a.b", "x")
        stranger = AuditLog(Connection(client), "another secret of tests")
        await stranger.record("a.b", "x")
        assert [problem.entry for problem in (await audit.verify()).problems] == [2]
        assert [problem.entry for problem in (await stranger.verify()).problems] == [1]


async def test_entries_cannot_be_deleted_and_a_rebuilt_stream_is_found(tmp_path: Path) -> None:
    """The server refuses to delete or purge; a stream that was rebuilt without its start, middle or end is detected."""
    async with opened(tmp_path) as (client, audit):
        for n in range(6):
            await audit.record("a.b", "x", str(n))
        head = (await audit.verify()).head
        assert (await audit.verify(head)).intact
        for request, body in (
            (f"STREAM.MSG.DELETE.{AUDIT_STREAM}", {"seq": 2}),
            (f"STREAM.PURGE.{AUDIT_STREAM}", {}),
        ):
            answer = await client.request(f"$JS.API.{request}", json.dumps(body).encode())
            assert "error" in json.loads(answer.data)

        js = client.jetstream()
        kept = [await js.get_msg(AUDIT_STREAM, n) for n in range(1, 7)]
        config = (await js.stream_info(AUDIT_STREAM)).config
        for left, problem in (
            ([0, 1, 2, 3, 4], "remembered"),  # its end is missing
            ([1, 2, 3, 4, 5], "moved"),  # its start is
            ([0, 1, 3, 4, 5], "moved"),  # one in the middle is
            ([0, 2, 1, 3, 4, 5], "moved"),  # two have changed places
            ([], "remembered"),
        ):
            await js.delete_stream(AUDIT_STREAM)
            await js.add_stream(config)
            # a busy server has been seen to bring the old messages back
            for _ in range(20):
                if not (await js.stream_info(AUDIT_STREAM)).state.messages:
                    break
                await js.delete_stream(AUDIT_STREAM)
                await js.add_stream(config)
            for n in left:
                await js.publish("audit.a.b", kept[n].data or b"")
            checked = await audit.verify(head)
            assert any(problem in str(each) for each in checked.problems), left
            if len(left) == 5 and left[-1] == 4:
                assert (await audit.verify()).intact  # why heads are worth remembering


async def test_a_start_that_is_too_young_to_be_gone_is_missed(tmp_path: Path) -> None:
    """A log that begins in its middle, though its first entry is new, has lost its start."""
    async with opened(tmp_path) as (client, audit):
        js = client.jetstream()
        config = (await js.stream_info(AUDIT_STREAM)).config
        await js.delete_stream(AUDIT_STREAM)
        config.first_seq = 10
        await js.add_stream(config)
        assert await audit.record("a.b", "x") == 10
        (problem,) = (await audit.verify()).problems
        assert problem.entry == 1


async def test_a_flood_cannot_push_entries_out(tmp_path: Path) -> None:
    """A full log refuses new entries, keeps all it has, and can still be verified."""
    async with opened(tmp_path) as (client, audit):
        js = client.jetstream()
        config = (await js.stream_info(AUDIT_STREAM)).config
        assert await audit.record("token.add", "mallory") == 1
        config.max_bytes = 10_000
        await js.update_stream(config)
        with pytest.raises(LogError, match="the audit log is full"):  # noqa: PT012 - the number depends on the sizes
            for _ in range(100):
                await audit.record("positions.read", "mallory", "x" * 1000)
        report = await audit.verify()
        assert (report.intact, report.first) == (True, 1)
        assert report.entries > 10
        assert report.used > NEARLY_FULL


async def test_a_remembered_head_must_be_one(tmp_path: Path) -> None:
    """A malformed head is an error that names the command which prints heads."""
    async with opened(tmp_path) as (_, audit):
        with pytest.raises(AuditError, match="headcount audit verify"):
            await audit.verify("12")


def test_command_line(tmp_path: Path) -> None:
    """`headcount audit` lists entries and verifies them; exit code 1 and the entry's number where it is broken."""
    (tmp_path / "secret").write_text(PASSWORD)
    with running_broker(tmp_path / "broker") as broker:
        where = ["--data", str(tmp_path), "--nats-port", str(broker.config.nats_port)]

        def run(*arguments: str) -> tuple[int, str]:
            result = CliRunner().invoke(main.main, ["audit", *arguments, *where])
            return result.exit_code, result.output

        def write(secret: str) -> None:
            async def record() -> None:
                client = await internal_client(broker)
                await AuditLog(Connection(client), secret).record("device.add", "token x", "s", {"a": 1})
                await client.close()

            asyncio.run(record())

        assert run("verify") == (0, "The audit log is empty.\n")
        write(PASSWORD)
        code, output = run("verify")
        assert (code, "1 entries" in output) == (0, True)
        head = output.split()[-1]
        assert run("list")[1].split()[2:] == ["device.add", "token", "x", "s", "a=1"]
        assert run("list", "--action", "token") == (0, "")
        assert json.loads(run("list", "--json")[1])["n"] == 1
        assert run("list", "--action", "no such")[0] == 2
        assert run("verify", "--from-head", head)[0] == 0
        assert run("verify", "--from-head", "9" + head)[0] == 1
        assert run("verify", "--from-head", "x")[0] == 2
        write("another secret of tests")
        code, output = run("verify")
        assert (code, "audit entry 2" in output) == (1, True)

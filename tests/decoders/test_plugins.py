"""Decoders of other packages: found without an import, and isolated in a process."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.faulty_plugin import install
from headcount.decoders import plugins
from headcount.decoders.formats import SHIPPED, subjects_of
from headcount.decoders.plugin_process import PluginProcess
from headcount.decoders.plugin_results import decode_results
from headcount.decoders.plugins import Plugin
from headcount.decoding import Decoded, DecodedFix, DecodedStatus, DecodeError, Ignored, Message
from headcount.devices.permissions import device_permissions
from headcount.errors import DecoderError
from headcount.messages import topics, units
from headcount.messages.records import Device

MESSAGE = Message("faulty/1/up", 1_700_000_000.0)
#: Enough for a busy machine, and little to wait for.
MESSAGE_S = 2.0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder from which packages are imported, here and in processes of plug-ins."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    plugins.installed.cache_clear()
    yield tmp_path
    plugins.installed.cache_clear()


def only_plugin() -> Plugin:
    """The only installed plug-in."""
    (found,), problems = plugins.installed()
    assert not problems
    return found


def labels(results: list[Decoded]) -> list[str]:
    """Results as words: names of devices, and labels of what is no fix."""
    return [
        each.label
        if isinstance(each, DecodeError)
        else each.reason
        if isinstance(each, Ignored)
        else each.name
        for each in results
    ]


async def decode_all(plugin: Plugin, payloads: list[str]) -> tuple[list[list[Decoded]], int]:
    """The results of messages, and how often the process was started."""
    items = [(payload.encode(), MESSAGE) for payload in payloads]
    results: list[list[Decoded]] = []
    async with PluginProcess(plugin, message_s=MESSAGE_S) as process:
        while len(results) < len(items):
            results += await process.decode(items[len(results) :], 60.0)
        return results, process.starts


# --- discovery -----------------------------------------------------------------------------------


def test_subjects_of_shipped_formats() -> None:
    """The streams and permissions have the subjects of the shipped formats' topics."""
    assert [s for format_ in SHIPPED for s in subjects_of(format_.topics)] == list(topics.FOREIGN_SUBJECTS)


def test_first_levels_of_internal_subjects_are_reserved() -> None:
    """No plug-in can have a topic that is a subject of headcount."""
    subjects = [
        value.format(**dict.fromkeys(("partition", "site", "zone", "name", "action"), "x"))
        for module in (topics, units)
        for name, value in vars(module).items()
        if name.endswith("_SUBJECT") and isinstance(value, str)
    ]
    assert len(subjects) > 10
    assert {subject.split(".")[0] for subject in subjects} <= plugins.RESERVED


def test_a_plugin_is_found_without_an_import(folder: Path) -> None:
    """Name, package and topics of an installed plug-in are read from its metadata and source."""
    install(folder)
    topics = ("faulty/+/up", "faulty-all")
    assert only_plugin() == Plugin("faulty", topics, "headcount_faulty 1.0", "headcount_faulty", "decode")
    assert "headcount_faulty" not in sys.modules
    assert plugins.plugin_subjects() == ("faulty.*.up", "faulty-all")
    assert plugins.formats() == (*SHIPPED, only_plugin())


@pytest.mark.parametrize(
    ("source", "entry", "problem"),
    [
        ("TOPICS = ['a/+']", "Upper_Case", "the name is not valid"),
        ("TOPICS = ['a/+']", "iotp", "another decoder has this name"),
        ("TOPICS = ['a/+'", "x", "cannot be read"),
        ("", "x", "no literal list TOPICS"),
        ("TOPICS = [str(1)]", "x", "no literal list TOPICS"),
        ("TOPICS = []", "x", "no literal list TOPICS"),
        ("TOPICS = ['headcount/+/x']", "x", "cannot be used"),
        ("TOPICS = ['fix/+']", "x", "cannot be used"),
        ("TOPICS = ['+/up']", "x", "cannot be used"),
        ("TOPICS = ['a/#']", "x", "cannot be used"),
        ("TOPICS = ['a.b']", "x", "cannot be used"),
        ("TOPICS = ['$SYS/x']", "x", "cannot be used"),
        ("TOPICS = ['a/+', 'a/b']", "x", "overlaps another one"),
        ("TOPICS = ['faulty/1/+']", "x", "overlaps another one"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_a_problem(
    folder: Path, source: str, entry: str, problem: str
) -> None:
    """A bad name, source or topic makes one plug-in unusable, and no other."""
    install(folder)
    install(folder, "other", source=source or "x = 1", entry=entry)
    (found,), (error,) = plugins.installed()
    assert found.name == "faulty"
    assert problem in str(error)


def test_only_gateways_may_publish_on_the_topics_of_plugins() -> None:
    """Subjects of plug-ins are among the permissions of an active gateway, and of no other device."""
    device = Device(id="a2b3c4d5e6f7a2b3c4d5", site="ul", kind="vehicle", gateway=True)
    gateway = device_permissions(device, ("faulty.*.up",))
    assert gateway is not None
    assert "faulty.*.up" in gateway.publish
    for fields in ({"gateway": False}, {"status": "paused"}):
        other = device_permissions(msgspec.structs.replace(device, **fields), ("faulty.*.up",))
        assert other is not None
        assert "faulty.*.up" not in other.publish


# --- isolation -----------------------------------------------------------------------------------


async def test_every_failure_is_a_verdict_of_its_message(folder: Path) -> None:
    """Wrong results and exceptions of a plug-in reject their own message; the process goes on."""
    install(folder)
    expected = {
        "p1": ["p1"],
        "rubbish": ["results"],
        "object": ["results"],
        "text": ["results"],
        "nan": ["no_position"],
        "unnamed": ["no_id"],
        "many": ["results"],
        "value": ["error"],
        "memory": ["memory"],
        "print": ["print"],
        "invalid": ["checksum"],
        "parts": ["a", "battery", "other"],
        "p2": ["p2"],
    }
    results, starts = await decode_all(only_plugin(), list(expected))
    assert {payload: labels(found) for payload, found in zip(expected, results, strict=True)} == expected
    assert starts == 1
    by_payload = dict(zip(expected, results, strict=True))
    assert by_payload["p2"] == [DecodedFix("p2", MESSAGE.received_s, 52.6743, -8.5727, kind="vehicle")]
    assert by_payload["parts"][0] == DecodedStatus("a", online=True)
    (error,) = by_payload["value"]
    assert isinstance(error, DecodeError)
    assert error.problem.startswith("the decoder raised ValueError in headcount_faulty.py line ")
    assert "Zaphod" not in error.problem
    (_, _, part) = by_payload["parts"]
    assert isinstance(part, DecodeError)
    assert part.problem == "two lines"


@pytest.mark.parametrize(
    ("payload", "label"), [("hang", "timeout"), ("crash", "crash"), ("exit", "crash"), ("large", "results")]
)
async def test_a_message_that_ends_the_process_is_rejected_alone(
    folder: Path, payload: str, label: str
) -> None:
    """A message on which the process hangs or ends is rejected; the others are decoded, in order."""
    install(folder)
    payloads = [*map(str, range(25)), payload, *map(str, range(25, 50))]
    results, starts = await decode_all(only_plugin(), payloads)
    assert [labels(found) for found in results] == [[label if p == payload else p] for p in payloads]
    assert starts >= 4


async def test_a_batch_ends_after_its_time(folder: Path) -> None:
    """A slow plug-in returns what it has decoded in time, so that it can be published."""
    install(folder)
    async with PluginProcess(only_plugin(), message_s=60.0) as process:
        found = await process.decode([(b"slow", MESSAGE)] * 100, 0.1)
    assert 1 <= len(found) < 100


async def test_a_plugin_that_cannot_be_imported_is_an_error(folder: Path) -> None:
    """The error has the reason, and the next start finds a repaired plug-in."""
    install(folder, source="import nothing_of_this_name\nTOPICS = ['a/b']\n")
    plugin = only_plugin()
    async with PluginProcess(plugin) as process:
        with pytest.raises(DecoderError, match="No module named 'nothing_of_this_name'"):
            await process.decode([(b"1", MESSAGE)], 60.0)
        (folder / "headcount_faulty.py").write_text(
            "from headcount.decoding import *\ndef decode(payload, message):\n    return [Ignored('all')]\n"
        )
        assert await process.decode([(b"1", MESSAGE)], 60.0) == [[Ignored("all")]]


async def test_a_batch_is_fast(folder: Path) -> None:
    """A process decodes far more messages per second than a deployment of 20,000 devices sends."""
    install(folder)
    items = [(b"p", MESSAGE)] * 5000
    async with PluginProcess(only_plugin(), message_s=60.0) as process:
        await process.start()
        begin_s = time.process_time()
        assert len(await process.decode(items, 600.0)) == len(items)
        assert (time.process_time() - begin_s) / len(items) < 0.001


@given(st.binary(max_size=200))
def test_no_bytes_of_a_process_raise(content: bytes) -> None:
    """Any bytes are results or rejections."""
    assert all(isinstance(each, Decoded) for each in decode_results(content))

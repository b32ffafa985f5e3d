"""Devices as CSV: export, and import of all or none."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from case_files import case
from headcount.devices import credentials
from headcount.devices.csv_table import (
    csv_line,
    decode_table,
    export_devices,
    import_devices,
    join_cell,
    parse_devices,
    split_cell,
)
from headcount.devices.device_fields import MAX_LABEL_CHARS, apply_changes
from headcount.devices.registry import Registry, new_handle
from headcount.errors import DeviceError
from headcount.messages.records import Device, LastSeen
from headcount.messages.topics import KINDS
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import DEVICE_BUCKET
from nats_fixture import PASSWORD, internal_client, open_broker

_PRINTABLE = st.text(st.characters(exclude_categories=("C", "Zl", "Zp", "Zs")) | st.just(" "), max_size=60)
TEXTS = (_PRINTABLE | st.from_regex(r"['=+@;\\\"-]{1,5}[a-z;\\,\"']{0,5}", fullmatch=True)).map(str.strip)
SEVERAL = st.lists(TEXTS.filter(bool), max_size=4, unique=True)
ALIASES = SEVERAL.map(lambda names: [f"iotp/{name}" for name in names])
GROUPS = st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True), max_size=4, unique=True)


@given(TEXTS, ALIASES, GROUPS, st.sampled_from(KINDS), st.booleans(), TEXTS)
def test_what_is_exported_can_be_imported(
    label: str, aliases: list[str], groups: list[str], kind: str, gateway: bool, app: str
) -> None:
    """An exported device is imported with the same fields, whatever characters they contain."""
    assert kind in KINDS
    device = Device(
        id=new_handle(),
        site="ul",
        kind="person" if kind == "person" else "vehicle",
        label=label,
        aliases=aliases,
        groups=groups,
        gateway=gateway,
        app=app,
    )
    (row,) = parse_devices("".join(export_devices([device], {device.id: LastSeen(5.0, True, "a")})), "ul")
    assert row.kind == kind
    fields = {"label": "", "aliases": [], "groups": [], "app": ""} | row.fields
    assert fields == {"label": label, "aliases": aliases, "groups": groups, "gateway": gateway, "app": app}


@given(st.lists(TEXTS.filter(bool), max_size=6))
def test_several_values_fit_into_one_cell(texts: list[str]) -> None:
    """Joining and splitting is the identity."""
    assert split_cell(join_cell(texts)) == texts


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_no_cell_is_a_formula(cells: list[str]) -> None:
    """No exported cell starts like a formula."""
    (read,) = csv.reader(io.StringIO(csv_line(cells)))
    assert not [cell for cell in read if cell.startswith(("=", "+", "-", "@"))]


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("", "there is no column `kind`"),
        ("label\nx\n", "there is no column `kind`"),
        ("kind,colour\nperson,red\n", "'colour'"),
        ("kind,kind\nperson,person\n", "duplicated"),
        ("kind\n", "has no devices"),
        ("kind\nperson\ncat\n", "line 3: kind: is 'cat'"),
        ("kind,label\nperson\n", "line 2: 1 cells"),
        (f"kind,label\nperson,{'x' * (MAX_LABEL_CHARS + 1)}\n", "line 2: label: 101 characters"),
        ('kind,label\nperson,"a\nb"\n', "line 3: label: contains characters"),
        ('kind,label\nperson,"a"b\n', "line 2: "),
        ("kind,site\nperson,elsewhere\n", "line 2: site: is 'elsewhere'"),
        ("kind,gateway\nperson,maybe\n", "line 2: gateway: is 'maybe'"),
        ("kind,groups\nperson,a b\n", "line 2: groups"),
        (
            "kind,aliases\nperson,iotp/1\nperson,iotp/2;iotp/1\n",
            "line 3: aliases: 'iotp/1' is also on line 2",
        ),
    ],
)
def test_a_bad_table_is_rejected_with_the_line(table: str, problem: str) -> None:
    """The error names the line and the problem."""
    with pytest.raises(DeviceError) as caught:
        parse_devices(table, "ul")
    assert problem in str(caught.value)


TABLE = "kind,label,groups,aliases\nperson,Zoë,a;b,iotp/1;owntracks/zoe/phone\n"


@pytest.mark.parametrize(
    "data",
    [
        TABLE.encode("utf-8-sig"),
        TABLE.encode("utf-16"),
        TABLE.encode("utf-16-le"),
        TABLE.replace(",", "\t").encode("utf-16"),
        TABLE.replace(",", "\t").encode(),
        TABLE.replace(",", ";")
        .replace("a;b", '"a;b"')
        .replace("iotp/1;owntracks/zoe/phone", '"iotp/1;owntracks/zoe/phone"')
        .encode(),
        b"sep=,\r\n" + TABLE.encode(),
        TABLE.replace("kind,label", ' KIND ,"Label"').encode(),
        TABLE.replace("aliases", "aliases,,").replace("/phone", "/phone,,").encode(),
    ],
    ids=range(9),
)
def test_tables_of_spreadsheets_are_read(data: bytes) -> None:
    """Encodings, separators, the case of the header and empty columns don't matter."""
    (row,) = parse_devices(decode_table(data), "ul")
    assert row.kind == "person"
    assert row.fields == {"label": "Zoë", "groups": ["a", "b"], "aliases": ["iotp/1", "owntracks/zoe/phone"]}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (TABLE.encode("cp1252"), "the table: is not UTF-8: line 2 is 'person,Zoë,a;b,iotp/1;owntracks/zoe/phone' in Windows-1252"),
        (b"PK\x03\x04rest", "the table: is a workbook or a zip archive. Save it as CSV (UTF-8)"),
        (TABLE.replace("kind", "art").encode(), "there is no column `kind`; the header is art, label, groups, aliases"),
        (b"sep=;\nkind;label\nperson;a\ncat;b\n", "line 4: kind: is 'cat'"),
        (case("devices_aliasbad.csv").read_bytes(), "line 2: aliases: 'jane/phone' matches no message. Use owntracks/USER/DEVICE or iotp/ID"),
    ],
    ids=range(5),
)  # fmt: skip
def test_tables_that_are_not_read_show_what_was_found(data: bytes, problem: str) -> None:
    """The error has the encoding, the header or the line."""
    with pytest.raises(DeviceError) as caught:
        parse_devices(decode_table(data), "ul")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    "alias",
    ["jane", "jane/phone", "owntracks/jane", "owntracks/jane/", "owntracks//phone", "owntracks/jane/phone/event", "owntracks/+/phone", "owntracks/#", "OwnTracks/jane/phone", "iotp/", "iotp", "car-iotp/7", "headcount/ul/a"],
)  # fmt: skip
def test_an_alias_that_cannot_match_is_refused(alias: str) -> None:
    """It would have no effect, so it is refused wherever it is set; a device that has one can still be changed."""
    device = Device(id=new_handle(), site="ul", kind="person")
    with pytest.raises(DeviceError, match="matches no message"):
        apply_changes(device, {"aliases": ["iotp/1", alias]})
    old = Device(id=new_handle(), site="ul", kind="person", aliases=[alias])
    assert apply_changes(old, {"status": "paused"}).status == "paused"


def test_all_bad_lines_are_reported() -> None:
    """One attempt reports the problems of all lines."""
    with pytest.raises(DeviceError, match=r"(?s)line 2.*line 4"):
        parse_devices("kind\ncat\nperson\ndog\n", "ul")


async def test_an_import_registers_all_or_none(tmp_path: Path) -> None:
    """Every row becomes a device with its own secret; if one is rejected, none is registered."""

    async def run() -> None:
        async with open_broker(tmp_path) as broker:
            client = await internal_client(broker)
            registry = Registry(KvBucket(Connection(client), DEVICE_BUCKET), PASSWORD)
            text = (
                "﻿Kind,Label,Groups,Aliases\r\nperson,Ford,staff;night,iotp/1\r\n\r\nvehicle,'=SUM(A1),,\r\n"
            )
            done: list[int] = []
            added = await import_devices(registry, "ul", parse_devices(text, "ul"), done.append)
            assert [device.label for device, _ in added] == ["Ford", "=SUM(A1)"]
            assert [device.kind for device, _ in added] == ["person", "vehicle"]
            assert all(credentials.verify_secret(secret, device.secret) for device, secret in added)
            assert len({secret for _, secret in added}) == 2
            assert done == [2]
            before = await registry.all()
            assert len(before) == 2
            clash = "kind,aliases\n" + "".join(f"person,iotp/{n}\n" for n in (5, 6, 1))
            with pytest.raises(DeviceError, match="line 4: alias 'iotp/1'"):
                await import_devices(registry, "ul", parse_devices(clash, "ul"))
            assert await registry.all() == before
            assert await registry.by_alias("iotp/5") is None
            await client.close()

    await run()


def test_the_table_chooses_the_site() -> None:
    """Without a site, the column `site` names it, the same in each row that does."""
    rows = parse_devices("kind,site\nperson,harbour\nperson,\n", None)
    assert [row.site for row in rows] == ["harbour", ""]
    with pytest.raises(DeviceError, match=r"line 3: site: is 'ul'\. This import is for 'harbour'"):
        parse_devices("kind,site\nperson,harbour\nperson,ul\n", None)
    with pytest.raises(DeviceError, match=r"line 2: site: is 'harbour'\. This import is for 'ul'"):
        parse_devices("kind,site\nperson,harbour\n", "ul")

"""Devices as CSV: a table that people fill in, and one of all that is registered; pure but for the import.

A cell that a spreadsheet would take for a formula (it begins with = + - @, or with an apostrophe) gets an
apostrophe before it, which the import takes away again. Several groups or aliases in one cell have
semicolons between; a semicolon or backslash inside one has a backslash before it.
"""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from headcount.devices.provisioning import provisioning_links
from headcount.devices.registry import Registry, apply_changes, new_handle
from headcount.errors import AliasTakenError, DeviceError, LogError
from headcount.messages.records import Device, Seen
from headcount.messages.times import iso
from headcount.messages.topics import KINDS, Kind

#: Devices of one import.
MAX_ROWS = 100_000
#: Of an import's text, in characters.
MAX_CHARACTERS = 64 << 20
#: What an import may give; only `kind` must be there.
IMPORT_COLUMNS = ("kind", "label", "groups", "aliases", "gateway", "firmware", "app")
#: What an export has besides; an import reads past it, so that an export can be imported elsewhere.
EXPORT_ONLY_COLUMNS = ("id", "site", "status", "created", "last_seen")
EXPORT_COLUMNS = ("id", "site", "kind", "label", "groups", "aliases", "gateway", "firmware", "app", "status", "created", "last_seen")  # fmt: skip
SECRET_COLUMNS = ("id", "secret", "label")
CODE_COLUMNS = ("code", "expires", "owntracks", "page")
_FORMULA = "=+-@＝＋－＠'"  # noqa: RUF001  # spreadsheets take the wide ones, too
_MAX_PROBLEMS = 20
_BATCH = 50
_YES, _NO = ("yes", "true", "1"), ("no", "false", "0", "")
_SPLIT = re.compile(r"(?:[^;\\]|\\.)+")


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A device that is to be registered."""

    number: int  # the line of the file on which it ends
    kind: Kind
    fields: dict[str, Any] = field(default_factory=dict)


def export_devices(devices: Iterable[Device], seen: Mapping[str, Seen]) -> Iterator[str]:
    """The table of devices, line by line, the header first."""
    yield csv_line(EXPORT_COLUMNS)
    for device in devices:
        last = seen.get(device.id)
        yield csv_line(
            (
                device.id,
                device.site,
                device.kind,
                device.label,
                join_cell(device.groups),
                join_cell(device.aliases),
                "yes" if device.gateway else "no",
                device.firmware,
                device.app,
                device.status,
                iso(device.created),
                "" if last is None else iso(last.at),
            )
        )


def csv_line(cells: Iterable[str]) -> str:
    """One line of a table, safe to open in a spreadsheet."""
    out = io.StringIO()
    csv.writer(out).writerow([_escape_formula(cell) for cell in cells])
    return out.getvalue()


def claim_codes_csv(made: Iterable[str], base: str, expires: float) -> str:
    """The table of claim codes with their links, under which address phones reach the API."""
    lines = [csv_line(CODE_COLUMNS)]
    for code in made:
        links = provisioning_links(base, code)
        lines.append(csv_line((code, iso(expires), links.owntracks, links.page)))
    return "".join(lines)


def parse_devices(text: str, site: str, most: int = MAX_ROWS) -> list[DeviceRow]:
    """The devices that a table wants registered on a site; all rows are usable, or none is taken.

    Raises:
        DeviceError: with the first 20 problems, each with the number of its line.
    """
    if len(text) > MAX_CHARACTERS:
        raise DeviceError("the table", f"has more than {MAX_CHARACTERS} characters", "Cut it into several")
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    problems: list[str] = []
    rows: list[DeviceRow] = []
    named: dict[str, int] = {}  # alias → line
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
        _check_header(header)
        for cells in reader:
            if not any(cells):
                continue
            if len(rows) >= most:
                raise DeviceError("the table", f"has more than {most} devices", "Cut it into several")
            try:
                row = _parse_row(header, cells, reader.line_num, site)
                _check_unique_aliases(row, named)
                rows.append(row)
            except DeviceError as error:
                problems.append(f"line {reader.line_num}: {error}")
                if len(problems) >= _MAX_PROBLEMS:
                    break
    except csv.Error as error:
        problems.append(f"line {reader.line_num}: {error}")
    if problems:
        raise DeviceError("nothing was imported", "not every line can be used", "\n".join(problems))
    if not rows:
        raise DeviceError("the table", "has no devices", "Below the header, write one on each line")
    return rows


async def import_devices(
    registry: Registry, site: str, rows: list[DeviceRow], on_progress: Callable[[int], None] = lambda _: None
) -> list[tuple[Device, str]]:
    """Register the devices of a table: all, or none.

    Args:
        registry: where.
        site: on which site.
        rows: as `parse_devices` gives them.
        on_progress: called with how many are registered.

    Returns:
        Each device with its secret, in the order of the rows. It is told here and never again.

    Raises:
        DeviceError: an alias is a registered device's.
    """
    await _check_aliases(registry, rows)
    added: list[tuple[Device, str]] = []
    try:
        for start in range(0, len(rows), _BATCH):
            some = rows[start : start + _BATCH]
            adding = [registry.add(site, row.kind, **row.fields) for row in some]
            answers = await asyncio.gather(*adding, return_exceptions=True)
            added += [answer for answer in answers if isinstance(answer, tuple)]
            for row, answer in zip(some, answers, strict=True):
                if isinstance(answer, DeviceError):
                    raise _import_error(row, answer) from answer
                if isinstance(answer, BaseException):
                    raise answer
            on_progress(len(added))
    except (DeviceError, LogError):
        for device, _ in added:
            await registry.forget(device.id)
        raise
    return added


async def _check_aliases(registry: Registry, rows: list[DeviceRow]) -> None:
    if not any(row.fields.get("aliases") for row in rows):
        return
    taken = {alias for device in (await registry.all()).values() for alias in device.aliases}
    for row in rows:
        for alias in row.fields.get("aliases", ()):
            if alias in taken:
                problem = AliasTakenError(
                    f"alias {alias!r}", "leads to another device", "Remove it there first"
                )
                raise _import_error(row, problem)


def _import_error(row: DeviceRow, error: DeviceError) -> DeviceError:
    return DeviceError("nothing was imported", f"line {row.number}: {error}", "Mend this line")


def join_cell(values: Iterable[str]) -> str:
    """Several texts as one cell."""
    return ";".join(value.replace("\\", "\\\\").replace(";", "\\;") for value in values)


def split_cell(cell: str) -> list[str]:
    """The texts of one cell."""
    return [re.sub(r"\\(.)", r"\1", part.strip()) for part in _SPLIT.findall(cell) if part.strip()]


def _escape_formula(cell: str) -> str:
    return f"'{cell}" if cell[:1] and cell[0] in _FORMULA else cell


def _unescape_formula(cell: str) -> str:
    return cell[1:] if len(cell) > 1 and cell[0] == "'" and cell[1] in _FORMULA else cell


def _check_header(header: list[str]) -> None:
    known = {*IMPORT_COLUMNS, *EXPORT_ONLY_COLUMNS}
    if "kind" not in header:
        raise DeviceError(
            "line 1", "names no column `kind`", f"Name the columns: {', '.join(IMPORT_COLUMNS)}"
        )
    for name in header:
        if name not in known:
            remedy = f"There are {', '.join(IMPORT_COLUMNS)}"
            raise DeviceError("line 1", f"names a column {name[:64]!r} that there isn't", remedy)
    if len(set(header)) < len(header):
        raise DeviceError("line 1", "names a column twice", "Name each once")


def _check_unique_aliases(row: DeviceRow, named: dict[str, int]) -> None:
    for alias in row.fields.get("aliases", ()):
        if alias in named:
            problem = f"{alias!r} is on line {named[alias]} already"
            raise DeviceError("aliases", problem, "It can lead to one device only")
        named[alias] = row.number


def _parse_row(header: list[str], cells: list[str], number: int, site: str) -> DeviceRow:
    if len(cells) != len(header):
        raise DeviceError(f"{len(cells)} cells", f"the header has {len(header)}", "Give each row as many")
    values = {name: _unescape_formula(cell.strip()) for name, cell in zip(header, cells, strict=True)}
    if values.get("site", site) not in {site, ""}:
        raise DeviceError("site", f"is {values['site'][:64]!r}", f"This import is for {site!r}")
    kind = values["kind"].lower()
    if kind not in KINDS:
        raise DeviceError("kind", f"is {values['kind'][:64]!r}", f"Use {' or '.join(KINDS)}")
    fields: dict[str, Any] = {name: values[name] for name in ("label", "firmware", "app") if values.get(name)}
    for name in ("groups", "aliases"):
        if values.get(name):
            fields[name] = split_cell(values[name])
    if "gateway" in values:
        answer = values["gateway"].lower()
        if answer not in (*_YES, *_NO):
            raise DeviceError("gateway", f"is {values['gateway'][:64]!r}", "Use yes or no")
        fields["gateway"] = answer in _YES
    apply_changes(Device(id=new_handle(), site=site, kind=kind), fields)
    return DeviceRow(number, kind, fields)

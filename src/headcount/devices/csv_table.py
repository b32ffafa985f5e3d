"""Devices as CSV: import and export; pure except for the import.

A cell that a spreadsheet would interpret as a formula (it starts with = + - @ or an apostrophe) is prefixed
with an apostrophe, which the import removes. Groups and aliases in one cell are separated by semicolons; a
semicolon or backslash inside a value is escaped with a backslash.
"""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from headcount.devices.device_fields import apply_changes
from headcount.devices.provisioning import provisioning_links
from headcount.devices.registry import Registry, alias_taken, new_handle
from headcount.errors import DeviceError, LogError
from headcount.messages.records import Device, LastSeen
from headcount.messages.text_tables import (
    find_separator,
    plain_name,
    shown_header,
    to_utf8,
    without_separator_line,
)
from headcount.messages.times import iso
from headcount.messages.topics import KINDS, Kind

#: Maximum number of devices in one import.
MAX_ROWS = 100_000
#: Maximum length of an import.
MAX_CHARACTERS = 64 << 20
#: Columns of an import; only `kind` is required.
IMPORT_COLUMNS = ("kind", "site", "label", "groups", "aliases", "gateway", "firmware", "app")
#: Additional columns of an export; an import ignores them, so that an export can be imported elsewhere.
EXPORT_ONLY_COLUMNS = ("id", "status", "created", "last_seen")
EXPORT_COLUMNS = ("id", "site", "kind", "label", "groups", "aliases", "gateway", "firmware", "app", "status", "created", "last_seen")  # fmt: skip
SECRET_COLUMNS = ("id", "secret", "label")
CODE_COLUMNS = ("code", "expires", "owntracks", "page")
_FORMULA = "=+-@＝＋－＠'"  # noqa: RUF001  # spreadsheets accept the full-width ones, too
_MAX_PROBLEMS = 20
_BATCH = 50
_YES, _NO = ("yes", "true", "1"), ("no", "false", "0", "")
_SPLIT = re.compile(r"(?:[^;\\]|\\.)+")


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A device to register."""

    number: int  # of the last line of this row in the file
    site: str  # "" = not stated
    kind: Kind
    fields: dict[str, Any] = field(default_factory=dict)


def export_devices(devices: Iterable[Device], seen: Mapping[str, LastSeen]) -> Iterator[str]:
    """The table of devices, line by line, starting with the header."""
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
    csv.writer(out, lineterminator="\n").writerow([_escape_formula(cell) for cell in cells])
    return out.getvalue()


def claim_codes_csv(made: Iterable[str], base: str, expires: float) -> str:
    """The table of claim codes with their links; `base` is the public URL of the API."""
    lines = [csv_line(CODE_COLUMNS)]
    for code in made:
        links = provisioning_links(base, code)
        lines.append(csv_line((code, iso(expires), links.owntracks, links.page)))
    return "".join(lines)


def decode_table(data: bytes) -> str:
    """The text of a table in UTF-8 or UTF-16, with or without a byte order mark.

    Raises:
        DeviceError: it is in another encoding, or no text.
    """
    if data.startswith(b"PK\x03\x04"):
        raise DeviceError("the table", "is a workbook or a zip archive", "Save it as CSV (UTF-8)")
    try:
        return to_utf8(data)[0].decode()
    except UnicodeDecodeError as error:
        if error.encoding != "utf-8":
            problem = f"is not valid {error.encoding.upper()}: {error.reason} at byte {error.start}"
            raise DeviceError("the table", problem, "Save it as UTF-8") from None
        line = data.count(b"\n", 0, error.start) + 1
        shown = data.splitlines()[line - 1].decode("cp1252", errors="replace")[:60]
        problem = f"is not UTF-8: line {line} is {shown!r} in Windows-1252"
        raise DeviceError("the table", problem, "Save it as UTF-8 (in Excel: CSV UTF-8)") from None


def parse_devices(text: str, site: str | None, max_rows: int = MAX_ROWS) -> list[DeviceRow]:
    """Parse a table of devices to register on a site; None: on that of the column `site`, which must be the same.

    Raises:
        DeviceError: the first 20 problems, each with its line number; then no row is usable.
    """
    if len(text) > MAX_CHARACTERS:
        raise DeviceError("the table", f"has more than {MAX_CHARACTERS} characters", "Split it")
    text = text.removeprefix("\ufeff")
    content = without_separator_line(text)
    skipped = text.count("\n") - content.count("\n")
    separator = find_separator(content.partition("\n")[0], (*IMPORT_COLUMNS, *EXPORT_ONLY_COLUMNS))
    reader = csv.reader(io.StringIO(content, newline=""), strict=True, delimiter=separator)
    problems: list[str] = []
    rows: list[DeviceRow] = []
    lines: dict[str, int] = {}  # alias → line
    try:
        header = [plain_name(cell) for cell in next(reader, [])]
        _check_header(header)
        for cells in reader:
            if not any(cells):
                continue
            if len(rows) >= max_rows:
                raise DeviceError("the table", f"has more than {max_rows} devices", "Split it")
            try:
                row = _parse_row(header, cells, reader.line_num + skipped, site)
                _check_unique_aliases(row, lines)
                site = site or row.site
                rows.append(row)
            except DeviceError as error:
                problems.append(f"line {reader.line_num + skipped}: {error}")
                if len(problems) >= _MAX_PROBLEMS:
                    break
    except csv.Error as error:
        problems.append(f"line {reader.line_num + skipped}: {error}")
    if problems:
        raise DeviceError("nothing was imported", "some lines are not valid", "\n".join(problems))
    if not rows:
        raise DeviceError("the table", "has no devices", "Add one line per device below the header")
    return rows


async def import_devices(
    registry: Registry, site: str, rows: list[DeviceRow], on_progress: Callable[[int], None] = lambda _: None
) -> list[tuple[Device, str]]:
    """Register the devices of a table: all, or none.

    Args:
        registry: of the deployment.
        site: the devices' site.
        rows: from `parse_devices`.
        on_progress: called with the number of registered devices.

    Returns:
        Each device with its secret, in the order of the rows. The secrets cannot be shown again.

    Raises:
        DeviceError: a registered device has one of the aliases.
    """
    await _check_aliases(registry, rows)
    added: list[tuple[Device, str]] = []
    try:
        for start in range(0, len(rows), _BATCH):
            some = rows[start : start + _BATCH]
            adding = [registry.add(site, row.kind, **row.fields) for row in some]
            results = await asyncio.gather(*adding, return_exceptions=True)
            added += [result for result in results if isinstance(result, tuple)]
            for row, result in zip(some, results, strict=True):
                if isinstance(result, DeviceError):
                    raise _import_error(row, result) from result
                if isinstance(result, BaseException):
                    raise result
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
                raise _import_error(row, alias_taken(alias))


def _import_error(row: DeviceRow, error: DeviceError) -> DeviceError:
    return DeviceError("nothing was imported", f"line {row.number}: {error}", "Correct this line")


def join_cell(values: Iterable[str]) -> str:
    """Join values into one cell."""
    return ";".join(value.replace("\\", "\\\\").replace(";", "\\;") for value in values)


def split_cell(cell: str) -> list[str]:
    """Split one cell into values."""
    return [re.sub(r"\\(.)", r"\1", part.strip()) for part in _SPLIT.findall(cell) if part.strip()]


def _escape_formula(cell: str) -> str:
    return f"'{cell}" if cell[:1] and cell[0] in _FORMULA else cell


def _unescape_formula(cell: str) -> str:
    return cell[1:] if len(cell) > 1 and cell[0] == "'" and cell[1] in _FORMULA else cell


def _check_header(header: list[str]) -> None:
    known = {*IMPORT_COLUMNS, *EXPORT_ONLY_COLUMNS}
    if "kind" not in header:
        problem = f"there is no column `kind`; the header is {shown_header(header) or 'empty'}"
        raise DeviceError("line 1", problem, f"Use {', '.join(IMPORT_COLUMNS)}")
    named = [name for name in header if name]  # spreadsheets write empty columns
    for name in named:
        if name not in known:
            raise DeviceError("line 1", f"unknown column {name[:64]!r}", f"Use {', '.join(IMPORT_COLUMNS)}")
    if len(set(named)) < len(named):
        raise DeviceError("line 1", "a column is duplicated", "List each column once")


def _check_unique_aliases(row: DeviceRow, lines: dict[str, int]) -> None:
    for alias in row.fields.get("aliases", ()):
        if alias in lines:
            problem = f"{alias!r} is also on line {lines[alias]}"
            raise DeviceError("aliases", problem, "An alias leads to one device only")
        lines[alias] = row.number


def _parse_row(header: list[str], cells: list[str], number: int, site: str | None) -> DeviceRow:
    if len(cells) != len(header):
        raise DeviceError(
            f"{len(cells)} cells", f"the header has {len(header)}", "Use the same number in each row"
        )
    values = {name: _unescape_formula(cell.strip()) for name, cell in zip(header, cells, strict=True)}
    own_site = values.get("site", "")
    if site and own_site not in {site, ""}:
        raise DeviceError("site", f"is {values['site'][:64]!r}", f"This import is for {site!r}")
    kind = values["kind"].lower()
    if kind not in KINDS:
        raise DeviceError("kind", f"is {values['kind'][:64]!r}", f"Use {' or '.join(KINDS)}")
    fields: dict[str, Any] = {name: values[name] for name in ("label", "firmware", "app") if values.get(name)}
    for name in ("groups", "aliases"):
        if values.get(name):
            fields[name] = split_cell(values[name])
    if "gateway" in values:
        gateway = values["gateway"].lower()
        if gateway not in (*_YES, *_NO):
            raise DeviceError("gateway", f"is {values['gateway'][:64]!r}", "Use yes or no")
        fields["gateway"] = gateway in _YES
    apply_changes(Device(id=new_handle(), site=own_site or site or "any", kind=kind), fields)
    return DeviceRow(number, own_site, kind, fields)

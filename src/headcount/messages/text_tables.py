"""Tables as text, as spreadsheets and other programs write them: encodings, separators, header lines; pure."""

from __future__ import annotations

import codecs
from collections.abc import Collection, Iterable

#: Separators of cells; the first is that of the standard.
SEPARATORS = (",", ";", "\t", "|")
#: Bytes from which the encoding of a text without a byte order mark is derived.
_SAMPLE = 4096
_MARKS = (
    (codecs.BOM_UTF8, "utf-8", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32-be", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
)


def to_utf8(data: bytes) -> tuple[bytes, str]:
    """The text as UTF-8 without a byte order mark, and the name of its encoding.

    Text that is not UTF-16 or UTF-32 stays as it is, and its name is UTF-8.

    Raises:
        UnicodeDecodeError: it starts like UTF-16 or UTF-32, and is not valid.
    """
    for mark, codec, name in _MARKS:
        if data.startswith(mark):
            data = data[len(mark) :]
            return (data, name) if codec == "utf-8" else (data.decode(codec).encode(), name)
    sample = data[:_SAMPLE]
    for start, codec in ((1, "utf-16-le"), (0, "utf-16-be")):
        nuls = sample[start::2].count(0)
        if nuls > len(sample) // 4 and sample[1 - start :: 2].count(0) < nuls // 10 + 1:
            return data.decode(codec).encode(), "UTF-16"
    return data, "UTF-8"


def find_separator(line: str, known: Collection[str]) -> str:
    """The separator of a header line: the one that gives the most known names, a comma if none does."""
    found = {
        separator: sum(name in known for name in header_names(line, separator)) for separator in SEPARATORS
    }
    return max(SEPARATORS, key=lambda separator: found[separator])


def header_names(line: str, separator: str) -> list[str]:
    """The names of a header line in lower case, without quotes and spaces."""
    return [plain_name(cell) for cell in line.split(separator)]


def plain_name(cell: str) -> str:
    """The name of a column in lower case, without quotes and spaces."""
    return cell.strip().strip('"').strip().casefold()


def without_separator_line(text: str) -> str:
    """The text without the line `sep=;` that Excel reads and writes."""
    first, newline, rest = text.partition("\n")
    return rest if newline and first.strip().casefold().startswith("sep=") else text


def shown_header(names: Iterable[str]) -> str:
    """A header for an error, at most 200 characters of it."""
    text = ", ".join(names)
    return text if len(text) <= 200 else f"{text[:200]}…"

"""Search every byte that a system has left on a disk, packed or not.

    hits = scan(folder, {"a name": b"Zaphod", "a pseudonym": bytes.fromhex("00…")})
    hits["a name"]        the files that have it, in whatever form, relative to the folder

The search covers the bytes of each file, every zstd frame in it (found by its magic number, as deep as they are
nested), the columns of Parquet files, and the content of gzip files. It finds each needle as it is, in UTF-16,
in hexadecimal digits, in Base64 at each of its three places, as JSON and URLs escape it, and backwards (numbers).
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

ZSTD = b"\x28\xb5\x2f\xfd"
#: Of one frame; ours are far smaller.
MAX_BYTES = 256 << 20
MAX_DEPTH = 3


def forms(needle: bytes) -> set[bytes]:
    """A needle in each of the forms in which it might lie there."""
    found = {needle, needle[::-1], needle.hex().encode(), needle.hex().upper().encode()}
    for shift in range(3):
        # without the characters at its ends, which depend on the neighbours
        encoded = base64.b64encode(b"\0" * shift + needle)
        core = encoded[(0, 2, 3)[shift] : len(b"\0" * shift + needle) * 4 // 3]
        if len(core) >= 6:
            found |= {core, core.translate(bytes.maketrans(b"+/", b"-_"))}
    try:
        text = needle.decode()
    except UnicodeDecodeError:
        return found
    for encoding in ("utf-16-le", "utf-16-be"):
        found.add(text.encode(encoding))
    return found | {json.dumps(text)[1:-1].encode(), quote(text, safe="").encode()}


def unpacked(data: bytes, depth: int = MAX_DEPTH) -> Iterator[bytes]:
    """The bytes, and what each zstd frame in them holds."""
    yield data
    if not depth:
        return
    for match in re.finditer(re.escape(ZSTD), data):
        if inner := _decompressed(data[match.start() :]):
            yield from unpacked(inner, depth - 1)


def _decompressed(data: bytes) -> bytes:
    parts: list[bytes] = []
    try:
        with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
            while sum(map(len, parts)) < MAX_BYTES and (part := stream.read(1 << 16)):
                parts.append(part)
    except (OSError, pa.ArrowException):
        pass  # the frame's end, or four bytes that only look like a frame
    return b"".join(parts)


def contents(path: Path) -> Iterator[bytes]:
    """The content of a file, in every form that can be unpacked."""
    data = path.read_bytes()
    yield from unpacked(data)
    if data.startswith(b"PAR1") and data.endswith(b"PAR1"):
        for column in pq.ParquetFile(path).read().columns:
            yield "\n".join(map(str, column.cast(pa.string()).unique().to_pylist())).encode()
    if data.startswith(b"\x1f\x8b"):
        yield gzip.decompress(data)


def scan(folder: Path, needles: Mapping[str, bytes]) -> dict[str, set[str]]:
    """Which files have which of the needles; names of files and folders count, too."""
    wanted = {name: forms(needle) for name, needle in needles.items()}
    hits: dict[str, set[str]] = {name: set() for name in needles}
    for path in sorted(folder.rglob("*")):
        place = str(path.relative_to(folder))
        texts = [place.encode(), *(contents(path) if path.is_file() else ())]
        for name, some in wanted.items():
            if any(form in text for text in texts for form in some):
                hits[name].add(place)
    return hits


def store_of(place: str) -> str:
    """The stream that a file belongs to, else the first part of its path."""
    match = re.search(r"jetstream/[^/]+/streams/([^/]+)", place)
    return match.group(1) if match else place.split("/", maxsplit=1)[0]

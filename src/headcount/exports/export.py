"""Write the selected fixes of the history to a file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from headcount.errors import ExportError
from headcount.exports.geoparquet import GeoParquetWriter
from headcount.exports.stored_fixes import Copies, FixSelection, read
from headcount.exports.tables import CsvWriter, FixWriter, GeoJsonWriter, NdjsonWriter, ParquetWriter
from headcount.exports.tracks import GpxWriter, MovingFeaturesWriter
from headcount.history.manifest import Segment
from headcount.history.objects import ObjectStore

#: The formats by name.
FORMATS: dict[str, Callable[[BinaryIO], FixWriter]] = {
    "csv": CsvWriter,
    "ndjson": NdjsonWriter,
    "geojson": GeoJsonWriter,
    "gpx": GpxWriter,
    "mfjson": MovingFeaturesWriter,
    "parquet": ParquetWriter,
    "geoparquet": GeoParquetWriter,
    "geoparquet2": partial(GeoParquetWriter, native=True),
}
#: The format of a file by the ending of its name.
ENDINGS = {
    ".csv": "csv",
    ".ndjson": "ndjson",
    ".geojson": "geojson",
    ".gpx": "gpx",
    ".mfjson": "mfjson",
    ".parquet": "geoparquet",
}


def format_of(path: Path) -> str:
    """The format of a file by its name.

    Raises:
        ExportError: the ending is unknown.
    """
    found = ENDINGS.get(path.suffix.lower())
    if found is None:
        problem = f"{path.name} does not end with {', '.join(ENDINGS)}"
        raise ExportError(problem, "Choose another name, or a format with --format")
    return found


def export(
    store: ObjectStore,
    segments: list[Segment],
    selection: FixSelection,
    sink: BinaryIO,
    name: str,
    progress: Callable[[int, float], None],
) -> int:
    """Write the selected fixes of segments to a sink, each once; returns their number.

    Args:
        store: of the segments.
        segments: see `FixSelection.segments`.
        selection: which fixes.
        sink: is written from its start to its end, without seeking.
        name: of the format, in FORMATS.
        progress: called with the rows so far and the share of the segments that is read.

    Raises:
        ExportError: too many fixes for a format of tracks.
        DataFolderError, StoreError: a segment cannot be read.
    """
    writer, rows, total, done = FORMATS[name](sink), 0, sum(each.rows for each in segments), 0
    copies = Copies(store, segments)
    for segment in segments:
        for table in read(store, segment, selection, copies):
            writer.write(table)
            rows += len(table)
            progress(rows, done / total)
        done += segment.rows
        progress(rows, done / total)
    writer.close()
    return rows


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that only its owner can read; it gets its name when it is complete, and only then.

    Raises:
        ExportError: it exists, or cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "xb", opener=partial(os.open, mode=0o600)) as file:  # Path.open has no opener
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.link(part, path)  # fails if it exists, where a rename would overwrite it
    except OSError as error:
        raise ExportError(
            f"{path} cannot be written: {error.strerror or error}", "Choose another file"
        ) from error
    finally:
        part.unlink(missing_ok=True)

"""Reading and writing site files, and finding those that come with headcount."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from headcount.counting.site import Site
from headcount.counting.site_file import parse_site
from headcount.errors import SiteError

#: More than a thousand detailed campuses: a larger file is not a site file.
MAX_FILE_BYTES = 64_000_000

#: The beginning of files that are taken for GeoJSON.
_OTHER_FORMS = {
    b"\x1f\x8b": "compressed (gzip)",
    b"PK\x03\x04": "a zip archive, such as KMZ or a shapefile",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"<": "XML or HTML, such as KML",
    b"\xef\xbb\xbf<": "XML or HTML, such as KML",
}
_CORRECT = "A site file is GeoJSON: correct it there, or export it again"
_REMEDY = "Use the path of a site file, or create one with `headcount site import`"


def load_site(path: Path) -> Site:
    """Read a site file.

    Raises:
        SiteError: the file cannot be read, is not JSON, or is not a valid site.
    """
    return parse_site(read_geojson(path), str(path))


def read_geojson(path: Path) -> object:
    """The JSON of a site file, without any validation.

    Raises:
        SiteError: the file is missing, unreadable, larger than `MAX_FILE_BYTES`, or not JSON.
    """
    source = str(path)
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            problem = f"has {size} bytes, more than {MAX_FILE_BYTES}"
            raise SiteError(source, "the file", problem, _REMEDY)
        content = path.read_bytes()
    except FileNotFoundError:
        raise SiteError(source, "the file", "does not exist", _REMEDY) from None
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
        raise SiteError(source, "the file", problem, _REMEDY) from None
    return decode_json(content, source)


def decode_json(content: bytes, source: str, remedy: str = _CORRECT) -> object:
    """Decode JSON in UTF-8, with or without a byte order mark; `source` and `remedy` are for errors.

    Raises:
        SiteError: it is not JSON; the error has the line and column.
    """
    try:
        value: object = json.loads(content.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        problem = f"is not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
    except RecursionError:
        problem = "is nested too deeply"
    except ValueError as error:  # not UTF-8, NaN, a number of thousands of digits
        problem = f"is not JSON: {error}"
    else:
        return value
    form = next((form for start, form in _OTHER_FORMS.items() if content.lstrip().startswith(start)), None)
    if form is not None and len(content) > 4:
        problem = f"is not JSON in UTF-8: it is {form}"
    raise SiteError(source, "the file", problem, remedy)


def _refuse_constant(name: str) -> object:
    message = f"{name} is not a number in JSON"
    raise ValueError(message)


def format_geojson(geojson: dict[str, Any]) -> str:
    """Format GeoJSON with one feature per line: short, and suitable for line-by-line comparison."""
    head = {key: value for key, value in geojson.items() if key != "features"}
    opening = json.dumps(head, ensure_ascii=False)[:-1]
    lines = ",\n".join(json.dumps(f, ensure_ascii=False) for f in geojson["features"])
    return f'{opening}, "features": [\n{lines}\n]}}\n'


def bundled_site(name: str) -> Path:
    """The file of a site that comes with headcount: `ul`, the University of Limerick.

    Raises:
        SiteError: there is none with this name; the error lists the available ones.
    """
    folder = Path(str(resources.files("headcount"))) / "sites" / "bundled"
    path = folder / f"{name}.geojson"
    if path.is_file():
        return path
    known = ", ".join(sorted(p.stem for p in folder.glob("*.geojson"))) or "none"
    raise SiteError(name, "the site", "does not come with headcount", f"Available: {known}")

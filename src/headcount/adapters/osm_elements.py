"""OpenStreetMap files → their nodes, ways and relations, whatever wrote them.

    .osm, .osc, also .gz and .bz2     XML of openstreetmap.org, JOSM, Overpass (`out geom;` too), histories
    .json                             Overpass or API, with inline positions or with the nodes
    .osm.pbf and others               through osmium

The elements come in any order; the same one may come several times (versions of a history, or an Overpass
query with several `out`). The format is found from the content, not from the name.
"""

from __future__ import annotations

import bz2
import gzip
import html
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Protocol, cast
from xml.etree import ElementTree as ET

import osmium

from headcount.errors import SiteError
from headcount.sites.files import decode_json

#: Longitude and latitude in degrees.
Position = tuple[float, float]
NODE, WAY, RELATION = "node", "way", "relation"

FORMATS = "Use OpenStreetMap data as .osm, .osm.gz, .osm.bz2 or .osm.pbf, or an Overpass response as .json"
_AGAIN = "The download failed: try again, or with a smaller area"
_HEAD_BYTES = 65_536
_OSM_CHANGE = ("create", "modify", "delete")


@dataclass(frozen=True, slots=True)
class OsmMember:
    """A way in a relation."""

    way: int
    role: str
    line: list[Position | None] | None = None  # its positions, if they are in the relation


@dataclass(frozen=True, slots=True)
class OsmElement:
    """A node, way or relation as one place of a file has it."""

    type: str
    id: int
    tags: Mapping[str, str] = field(default_factory=dict)
    version: int = 0
    deleted: bool = False
    position: Position | None = None  # of a node
    refs: list[int] = field(default_factory=list)  # a way's nodes
    line: list[Position | None] | None = None  # a way's positions, if they are in the way
    members: list[OsmMember] = field(default_factory=list)  # a relation's ways

    def merged(self, other: OsmElement) -> OsmElement:
        """The newer of two versions; of the same version, what both have together."""
        if other.version != self.version or other.deleted or self.deleted:
            return other if other.version >= self.version else self
        return replace(
            self,
            tags={**self.tags, **other.tags},
            position=other.position or self.position,
            refs=other.refs or self.refs,
            line=other.line or self.line,
            members=other.members or self.members,
        )


class OsmSource(Protocol):
    """A file that can be read several times."""

    #: The middle of the area that was exported, if the file has it.
    centre: Position | None
    #: Whether versions of an element may come in any order; else they ascend.
    any_order: bool

    def elements(self, type_: str, ids: set[int] | None = None) -> Iterator[OsmElement]:
        """The elements of a type, in the order of the file; `ids` may be used to leave out others."""


def open_source(path: Path) -> OsmSource:
    """Find out the format of a file.

    Raises:
        SiteError: it is missing, incomplete, or of a format that is not OpenStreetMap data.
    """
    if not path.is_file():
        raise SiteError(str(path), "the file", "does not exist", FORMATS)
    head = _head(path).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head:
        raise SiteError(str(path), "the file", "is empty", _AGAIN)
    if re.match(rb"(?:<\?xml[^>]*>\s*)?<(?:!doctype\s+html|html|head|body)", head, re.IGNORECASE):
        raise SiteError(
            str(path), "the file", f"is an HTML page{_title(head)}, not OpenStreetMap data", _AGAIN
        )
    if head.startswith(b"PK\x03\x04"):
        raise SiteError(str(path), "the file", "is a zip archive", "Unpack it, and import the file in it")
    if head[:1] in b"{[":
        return _JsonSource(path)
    if head[:1] == b"<" and re.search(rb"<(osm|osmChange)[\s>/]", head[:4096]):
        return _XmlSource(path)
    return _OsmiumSource(path)


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        start = file.read(3)
    if start[:2] == b"\x1f\x8b":
        return cast("IO[bytes]", gzip.open(path))
    return bz2.open(path) if start == b"BZh" else path.open("rb")


def _head(path: Path) -> bytes:
    try:
        with _open(path) as file:
            return file.read(_HEAD_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise SiteError(str(path), "the file", f"cannot be read: {error}", FORMATS) from None


def _title(page: bytes) -> str:
    """The error message of an HTML page: that of the Overpass API, or the title."""
    text = page.decode(errors="replace")
    found = re.search(r"Error</strong>:(.*?)</p>", text, re.DOTALL) or re.search(
        r"<title>(.*?)</title>", text, re.DOTALL | re.IGNORECASE
    )
    words = " ".join(html.unescape(re.sub("<[^>]*>", " ", found[1])).split())[:200] if found else ""
    return f' ("{words}")' if words else ""


def _refuse_remark(source: str, remark: object) -> None:
    """Raise the error for an answer that the Overpass API did not finish."""
    if isinstance(remark, str) and remark.strip():
        problem = f'is not complete: the Overpass API reports "{" ".join(remark.split())[:300]}"'
        raise SiteError(
            source, "the file", problem, "Request it again, with a longer [timeout:…] or a smaller area"
        )


class _XmlSource:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.centre: Position | None = None
        self.any_order = True

    def elements(self, type_: str, ids: set[int] | None = None) -> Iterator[OsmElement]:  # noqa: ARG002
        source = str(self._path)
        try:
            with _open(self._path) as file:
                yield from self._parsed(file, type_)
        except ET.ParseError as error:
            problem = f"is not complete, or not XML: {error}"
            raise SiteError(source, "the file", problem, "Download it again, completely") from None
        except (EOFError, zlib.error) as error:
            raise SiteError(
                source, "the file", f"is cut off: {error}", "Download it again, completely"
            ) from None
        except (KeyError, ValueError) as error:
            problem = f"has an element that OpenStreetMap does not write ({type(error).__name__}: {error})"
            raise SiteError(source, "the file", problem, FORMATS) from None

    def _parsed(self, file: IO[bytes], type_: str) -> Iterator[OsmElement]:
        open_: list[ET.Element] = []
        for event, element in ET.iterparse(file, ("start", "end")):  # noqa: S314 - expat limits entities
            if event == "start":
                open_.append(element)
                continue
            open_.pop()
            outer = open_[-1] if open_ else None
            if outer is None or outer.tag not in ("osm", "osmChange", *_OSM_CHANGE):
                continue
            if element.tag == "remark":
                _refuse_remark(str(self._path), element.text)
            elif element.tag == "bounds":
                self.centre = _middle(element.attrib)
            elif element.tag == type_:
                yield _from_xml(element, deleted=outer.tag == "delete")
            outer.remove(element)


def _middle(bounds: Mapping[str, str]) -> Position | None:
    try:
        return (
            (float(bounds["minlon"]) + float(bounds["maxlon"])) / 2,
            (float(bounds["minlat"]) + float(bounds["maxlat"])) / 2,
        )
    except (KeyError, ValueError):
        return None


def _from_xml(element: ET.Element, *, deleted: bool) -> OsmElement:
    of = element.attrib
    nodes = element.findall("nd")
    line = [_xml_position(node.attrib) for node in nodes]
    return OsmElement(
        element.tag,
        int(of["id"]),
        {tag.attrib["k"]: tag.attrib["v"] for tag in element.findall("tag")},
        int(of.get("version", 0)),
        deleted or of.get("action") == "delete" or of.get("visible") == "false",
        _xml_position(of),
        [int(node.attrib["ref"]) for node in nodes if "ref" in node.attrib],
        line if any(line) else None,
        [
            OsmMember(int(member.attrib["ref"]), member.attrib.get("role", ""), _xml_line(member))
            for member in element.findall("member")
            if member.attrib.get("type") == WAY
        ],
    )


def _xml_line(member: ET.Element) -> list[Position | None] | None:
    line = [_xml_position(node.attrib) for node in member.findall("nd")]
    return line or None


def _xml_position(of: Mapping[str, str]) -> Position | None:
    return (float(of["lon"]), float(of["lat"])) if "lat" in of and "lon" in of else None


class _JsonSource:
    def __init__(self, path: Path) -> None:
        self.centre: Position | None = None
        self.any_order = True
        self._source = source = str(path)
        with _open(path) as file:
            response = decode_json(file.read(), source, "Download it again, completely")
        if isinstance(response, dict) and response.get("type") == "FeatureCollection":
            problem = "is GeoJSON, not OpenStreetMap data"
            remedy = "Export the raw data. If it is a site file, use `headcount site check`"
            raise SiteError(source, "the file", problem, remedy)
        if not isinstance(response, dict) or not isinstance(response.get("elements"), list):
            problem = "is JSON, but not a response of the Overpass API: it has no list of elements"
            raise SiteError(source, "the file", problem, FORMATS)
        _refuse_remark(source, response.get("remark"))
        self._elements: list[dict[str, Any]] = response["elements"]

    def elements(self, type_: str, ids: set[int] | None = None) -> Iterator[OsmElement]:  # noqa: ARG002
        try:
            for element in self._elements:
                if element["type"] == type_:
                    yield _from_json(element)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            problem = f"has an element that the Overpass API does not write ({type(error).__name__}: {error})"
            raise SiteError(
                self._source, "the file", problem, "Request `out geom;` and save the whole response"
            ) from None


def _from_json(element: Mapping[str, Any]) -> OsmElement:
    is_node = element["type"] == NODE
    deleted = element.get("visible") is False or element.get("action") == "delete"
    return OsmElement(
        element["type"],
        int(element["id"]),
        {str(key): str(value) for key, value in element.get("tags", {}).items()},
        int(element.get("version", 0)),
        deleted,
        (float(element["lon"]), float(element["lat"])) if is_node and not deleted else None,
        [int(ref) for ref in element.get("nodes", ())],
        _json_line(element.get("geometry")),
        [
            OsmMember(int(member["ref"]), member.get("role", ""), _json_line(member.get("geometry")))
            for member in element.get("members", ())
            if member["type"] == WAY
        ],
    )


def _json_line(geometry: Iterable[Mapping[str, float] | None] | None) -> list[Position | None] | None:
    if geometry is None:
        return None
    return [None if point is None else (float(point["lon"]), float(point["lat"])) for point in geometry]


class _OsmiumSource:
    _ENTITIES = {NODE: osmium.osm.NODE, WAY: osmium.osm.WAY, RELATION: osmium.osm.RELATION}  # noqa: RUF012

    def __init__(self, path: Path) -> None:
        self._path = path
        self.centre: Position | None = None
        self.any_order = False  # such files may be of a whole country

    def elements(self, type_: str, ids: set[int] | None = None) -> Iterator[OsmElement]:
        try:
            processor = osmium.FileProcessor(str(self._path), self._ENTITIES[type_])
            box = processor.header.box()
            if box.valid():
                corners = box.bottom_left, box.top_right
                self.centre = sum(c.lon for c in corners) / 2, sum(c.lat for c in corners) / 2
            if ids is not None and not any(id_ < 0 for id_ in ids):
                processor = processor.with_filter(osmium.filter.IdFilter(ids))
            for obj in processor:
                yield _from_osmium(type_, obj)
        except (RuntimeError, OSError) as error:  # osmium's errors for files that it cannot read
            raise SiteError(str(self._path), "the file", f"cannot be read: {error}", FORMATS) from None


def _from_osmium(type_: str, obj: Any) -> OsmElement:
    deleted = obj.deleted or not obj.visible
    position = (obj.lon, obj.lat) if type_ == NODE and not deleted and obj.location.valid() else None
    refs, line, members = [], None, []
    if type_ == WAY:
        refs = [node.ref for node in obj.nodes]
        inline = [(node.lon, node.lat) if node.location.valid() else None for node in obj.nodes]
        line = inline if any(inline) else None
    elif type_ == RELATION:
        members = [OsmMember(member.ref, member.role) for member in obj.members if member.type == "w"]
    return OsmElement(type_, obj.id, dict(obj.tags), obj.version, deleted, position, refs, line, members)

"""The tags of OpenStreetMap objects, as mappers write them → types, names, ids and capacities; pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

Tags = Mapping[str, str]

#: Ids derived from names are cut to this, which leaves room for a number.
MAX_SLUG_CHARS = 48
CAMPUS = ("university", "college")
#: Buildings that people hardly visit: without a name they are no zones by default.
SHEDS = frozenset(
    [
        "bicycle_shed",
        "carport",
        "chimney",
        "container",
        "garage",
        "garages",
        "garbage_shed",
        "hut",
        "roof",
        "ruins",
        "service",
        "shed",
        "silo",
        "storage_tank",
        "tank",
        "tent",
        "transformer_tower",
        "trash_enclosure",
    ]
)
#: Keys of names, the first that is there wins; and those for ids, where the name has no Latin letters.
_NAMES = ("name", "name:en", "int_name", "official_name", "short_name", "alt_name")
_LATIN_NAMES = ("name:en", "int_name", "name:latin", "alt_name")
_LETTERS = str.maketrans(
    {"ß": "ss", "ø": "o", "Ø": "o", "æ": "ae", "Æ": "ae", "œ": "oe", "ł": "l", "Ł": "l", "đ": "d"}
)
_ABOUT = r"(?:~|≈|±|about|approx(?:imately)?\.?|around|circa|ca\.?|c\.|etwa|ungefähr|env(?:iron)?\.?|est(?:imated)?\.?)"
_NUMBER = r"(?P<number>[0-9]{1,3}(?:[,.' \u2019\u202f][0-9]{3})+|[0-9]{1,6})(?:[.,]0+)?"
_UNIT = (
    r"(?:cars?|vehicles?|(?:parking )?(?:spaces?|lots?|places?|spots?|bays?|stalls?)|stellplätze|plätze|pkw)"
)
_CAPACITY = re.compile(rf"{_ABOUT}?\s*{_NUMBER}\s*{_UNIT}?", re.IGNORECASE)


def zone_type(tags: Tags) -> str | None:
    """The type of the zone that an area becomes; None for other areas."""
    if tags.get("amenity") == "parking":
        return "car_park"
    return "building" if tags.get("building", "no") != "no" else None


def is_unnamed_shed(tags: Tags) -> bool:
    """Whether it is a shed, garage or the like without a name, number or use."""
    return tags.get("building") in SHEDS and "amenity" not in tags and not (name(tags) or label(tags))


def name(tags: Tags) -> str:
    """The name; empty if it has none that can be seen."""
    return next((found for key in _NAMES if (found := _visible(tags.get(key, "")))), "")


def label(tags: Tags) -> str:
    """The number or letter of a building or car park, such as `P 7`."""
    return _visible(tags.get("ref", ""))


def id_from(tags: Tags) -> str:
    """An id from the name, or from its English form if it has letters that ids can't have."""
    own = name(tags)
    latin = next((found for key in _LATIN_NAMES if (found := slug(tags.get(key, "")))), "")
    return slug(own) if _is_latin(own) or not latin else latin


def slug(text: str) -> str:
    """Derive an id from a name: `Músaem & Café` → `musaem-cafe`; empty if no letter or digit is left."""
    plain = unicodedata.normalize("NFKD", text.translate(_LETTERS)).encode("ascii", "ignore").decode().lower()
    plain = re.sub(r"['.]", "", plain)
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:MAX_SLUG_CHARS].rstrip("-")


def capacity(text: str) -> int | None:
    """The number of spaces, if its meaning is plain: `120`, `~50`, `ca. 30`, `1,200`, `80 spaces`; else None."""
    digits = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in " ".join(text.split()))
    found = _CAPACITY.fullmatch(digits)
    return int(re.sub(r"\D", "", found["number"])) if found else None


def _visible(text: str) -> str:
    """The text in one line, without characters that nothing is printed for."""
    shown = "".join(
        c for c in text if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn") or c in "\t\r\n"
    )
    return " ".join(shown.split())


def _is_latin(text: str) -> bool:
    plain = unicodedata.normalize("NFKD", text.translate(_LETTERS))
    return all(c.isascii() for c in plain if c.isalpha())

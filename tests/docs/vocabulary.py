"""The words that headcount doesn't use, each with its replacement.

The glossary (docs/reference/glossary.md) defines the words that it does use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

Kind = Literal["file", "class", "function", "constant"]

#: Banned in text: regular expressions that match whole words in any case.
PHRASES: dict[str, str] = {
    r"names? of the day|the days?'s? names?": "daily pseudonym",
    r"tells?|telling|told": "publish, report, show, return",
    r"says?|saying|said": "state, report, show; “for example”",
    r"hears?|hearing|heard": "receive; last seen",
    r"speaks?|speaking|spoke|spoken": "send a heartbeat; use (a protocol)",
    r"silences?|falls? silent|fell silent": "missed heartbeats; stops reporting",
    r"anew": "again; rejoin",
    r"mends?|mended|mending": "fix",
    r"gives? back|given back|giving back|gave back": "release",
    r"chair": "leader election",
    r"admission": "authentication",
    r"gates?": "auth service",
    r"doors?": "endpoint, listener",
    r"rosters?": "device table",
    r"handouts?": "provisioning",
    r"leftovers?": "scrub",
    r"under fire|in peace": "under failures; normally",
    r"slips? of the pen": "typo",
    r"whoever|somebody|nobody": "the person or part that is meant",
    r"at once": "immediately; at the same time",
    r"so (?:many|few|long)": "a number or a noun",
    r"(?:of|for|by|from|than|against) who": "the person or part that is meant",
}

#: Banned words within identifiers.
WORDS: dict[str, str] = {
    "tell tells told": "publish, report",
    "say says said": "report, show",
    "hear hears heard hearing": "receive, last seen",
    "speak speaks spoke spoken": "heartbeat",
    "silence silences": "timeout",
    "anew": "again, rejoin",
    "mend mended": "fix",
    "tend tended": "run, rotate, refresh",
    "look looks": "poll, check; access history",
    "most least": "max, min",
    "gate gates": "auth service",
    "admission": "authentication",
    "chair": "leader election",
    "roster": "device table",
    "clearance": "edge distance",
    "zoneset zonesets": "membership sets",
    "leftover leftovers": "scrub",
    "handout": "provisioning",
    "seat seats": "slot",
    "door doors": "endpoint, listener",
    "whoever somebody nobody": "the person or part that is meant",
}

#: Banned identifiers: regular expressions for the whole name.
NAMES: dict[Kind, dict[str, str]] = {
    "file": {
        r"law|needs|days": "policy, demand, load_profile",
        r"kept|looks|parts|sources|picture|shapes": "cache or buffer, access_history, services, settings …",
        r"following|erasing|links|outlines|scenes": "kv_watch, secure_delete, one_time_links, polygons, scenarios",
        r"own|sheet|trail": "device-api, bottom-sheet, track",
    },
    "class": {
        r"Desk|Parts|_Core": "Services",
        r"Sources": "ApiSettings",
        r"Picture": "CountsSnapshot",
        r"\w+Shape": "a schema: CountsResponse, DeviceCreate",
    },
    "function": {
        r"_?(?:keep|tend)": "run, rotate, refresh",
        r"listed|added|shown": "list_…, create_…, get_…",
    },
    "constant": {},
}

_PHRASES = {re.compile(rf"\b(?:{text})\b(?!-)", re.IGNORECASE): use for text, use in PHRASES.items()}
#: A sentence that has a question for its subject.
_HEADLESS = re.compile(r"(?:^[-*>| ]*|(?<=[.:;] ))\**(?:Who|What|Whose) [^.?\n]*(?:\.|$)", re.MULTILINE)
_WORDS = {word: use for words, use in WORDS.items() for word in words.split()}
_IDIOMS = re.compile(r"at_(?:least|most)|look_up", re.IGNORECASE)
_HUMP = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def in_text(text: str) -> Iterator[str]:
    """Each banned word of a text, and each sentence that starts with a question and isn't one."""
    for pattern, use in _PHRASES.items():
        for found in pattern.finditer(text):
            around = " ".join(text[max(0, found.start() - 30) : found.end() + 30].split())
            yield f"“{found[0]}” in “… {around} …”: use {use}"
    for found in _HEADLESS.finditer(text):
        yield f"“{' '.join(found[0].split())[:70]} …”: name the subject"


def in_name(name: str, kind: Kind) -> Iterator[str]:
    """Each banned word of an identifier, and the identifier itself where it is banned as a whole."""
    for word in _HUMP.findall(_IDIOMS.sub("", name)):
        if (use := _WORDS.get(word.lower())) is not None:
            yield f"{kind} `{name}`, “{word}”: use {use}"
    for pattern, use in NAMES[kind].items():
        if re.fullmatch(pattern, name):
            yield f"{kind} `{name}`: use {use}"

"""Names, ids and capacities as mappers write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headcount.adapters.osm_tags import capacity, id_from, name, slug
from headcount.messages.topics import ID


@pytest.mark.parametrize(
    ("tags", "shown", "derived"),
    [
        ({"name": "Músaem & Café"}, "Músaem & Café", "musaem-cafe"),
        ({"name": " Main\n Hall "}, "Main Hall", "main-hall"),
        ({"name": "图书馆", "name:en": "Library"}, "图书馆", "library"),
        ({"name": "Βιβλιοθήκη A", "int_name": "Library A"}, "Βιβλιοθήκη A", "library-a"),
        ({"name": "Straße 7", "name:en": "Street 7"}, "Straße 7", "strasse-7"),
        ({"name": "Łódź Hall"}, "Łódź Hall", "lodz-hall"),
        ({"name": "图书馆 A"}, "图书馆 A", "a"),
        ({"name": "图书馆"}, "图书馆", ""),
        ({"name": " ", "name:en": "Hall"}, "Hall", "hall"),
        ({"name": "\u200b\ufeff"}, "", ""),
        ({"name": "\x07"}, "", ""),
        ({}, "", ""),
    ],
)
def test_names_and_ids(tags: dict[str, str], shown: str, derived: str) -> None:
    """A name is shown as it is, without invisible characters; its id falls back to the English name."""
    assert (name(tags), id_from(tags)) == (shown, derived)


@given(st.text())
def test_every_slug_is_an_id(text: str) -> None:
    """A slug is empty or an id."""
    assert slug(text) == "" or ID.fullmatch(slug(text))
    assert name({"name": text}) == name({"name": name({"name": text})})


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("120", 120),
        ("~50", 50),
        ("≈ 50", 50),
        ("ca. 50", 50),
        ("ca 50", 50),
        ("c. 50", 50),
        ("circa 50", 50),
        ("about 50", 50),
        ("approx. 50", 50),
        ("etwa 50", 50),
        ("1,200", 1200),
        ("1.200", 1200),
        ("1 200", 1200),
        ("1'200", 1200),
        ("1\u202f200", 1200),
        ("1\u00a0200", 1200),
        ("~1,200 spaces", 1200),
        ("80 cars", 80),
        ("80 Stellplätze", 80),
        ("80.0", 80),
        ("0", 0),
    ],
)
def test_plain_capacities(text: str, number: int) -> None:
    """One number has one meaning, whatever stands around it."""
    assert capacity(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yes",
        "many",
        "50-60",
        "50;20",
        "50+",
        ">50",
        "<50",
        "50?",
        "2x50",
        "50 (5 disabled)",
        "1e3",
        "-5",
        "12.5",
        "1,20",
        "12,5",
        "1,2000",
        "½",
        "²",
        "9" * 30,
        "50/60",
        "50 and 20",
    ],
)
def test_unclear_capacities(text: str) -> None:
    """Ranges, lists, limits and words are no capacity."""
    assert capacity(text) is None


@given(st.text())
def test_any_text_is_a_capacity_or_none(text: str) -> None:
    """Nothing raises."""
    found = capacity(text)
    assert found is None or 0 <= found < 10**9

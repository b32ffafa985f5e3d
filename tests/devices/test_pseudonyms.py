"""Daily pseudonyms."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from headcount.devices.pseudonyms import Pseudonyms

IDS = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
KEY = b"k" * 32


@given(IDS, IDS, IDS)
def test_devices_of_one_id_on_two_sites_have_different_pseudonyms(site: str, other: str, device: str) -> None:
    """The same kind and id has one pseudonym on a site, the hash of site, kind and id, and another elsewhere."""
    pseudonyms, key = Pseudonyms({1: KEY}), f"person.{device}".encode()
    there, elsewhere = (pseudonyms.on(each).of(key, 1) for each in (site, other))
    assert (there == elsewhere) == (site == other)
    assert there == pseudonyms.on(site).many([key], 1).tobytes().hex()
    assert there == hashlib.blake2b(f"{site}.".encode() + key, key=KEY, digest_size=8).hexdigest()


def test_without_the_days_key_pseudonyms_are_random() -> None:
    """They are stable within one object and differ from those of another one."""
    one, other = (Pseudonyms({}).on("campus") for _ in range(2))
    assert not one.knows(1)
    assert one.of(b"person.a", 1) == one.of(b"person.a", 1) != other.of(b"person.a", 1)

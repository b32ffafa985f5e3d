"""Messages of the log → columns."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headcount.counting.fix_columns import FIX, FORGET, OFFLINE, ONLINE, FixColumns
from headcount.messaging.payloads import BATCH_DECODE, decode
from headcount.messaging.raw_batch import RawBatch

GOOD = b'{"tst":1700000000,"lat":52.5,"lon":-8.5,"acc":5}'
NESTED = b"[" * 100_000
BAD = [
    b"",
    b"not json",
    b"\xff\xfe\x00",
    b"[]",
    b"null",
    b"{}",
    b'{"tst":1,"lat":2}',
    b'{"tst":"1","lat":2,"lon":3}',
    b'{"tst":1,"lat":true,"lon":3}',
    b'{"tst":NaN,"lat":2,"lon":3}',
    b'{"tst":1e999,"lat":2,"lon":3}',
    b'{"tst":1,"lat":2,"lon":3}\x00{"tst":1,"lat":2,"lon":3}',
    b'{"tst":1,"lat":2,"lon":3},{"tst":1,"lat":2,"lon":3}',
    b'{"tst":1,"lat":2,"lon":3,"x":' + NESTED,
    b'{"tst":1,"lat":2,"lon":3,"x":"' + b"y" * 10_000_000 + b'"',
    b'{"tst":1,"lat":2,"lon":3,"x":"' + b"y" * 20_000 + b'"}',  # whole, but too large
]


def _rows(subjects: list[bytes], payloads: list[bytes]) -> FixColumns:
    n = len(subjects)
    return decode(b"ul", RawBatch(1, subjects, payloads, np.arange(n), np.full(n, 10**18)))


@pytest.mark.parametrize("payload", BAD, ids=range(len(BAD)))
def test_a_broken_payload_hurts_only_itself(payload: bytes) -> None:
    """A payload that can't be decoded has no time; its neighbours are untouched."""
    found = _rows([b"fix.1.ul.person.a", b"fix.1.ul.person.b", b"fix.1.ul.person.c"], [GOOD, payload, GOOD])
    assert np.isnan(found.t_s).tolist() == [False, True, False]
    assert found.lat_deg[[0, 2]].tolist() == [52.5, 52.5]
    assert found.names == [b"fix.1.ul.person.a", b"fix.1.ul.person.b", b"fix.1.ul.person.c"]


def test_fields_of_a_fix() -> None:
    """`t` as a number is the exact time, a letter is OwnTracks' trigger; acc may be missing or null."""
    payloads = [
        b'{"tst":5,"lat":1,"lon":2}',
        b'{"tst":5,"t":5.25,"lat":1,"lon":2,"acc":null}',
        b'{"_type":"location","tst":5,"t":"u","lat":1,"lon":2,"acc":7,"batt":80,"vel":3,"SSID":"x"}',
    ]
    found = _rows([b"fix.1.ul.vehicle.x"] * 3, payloads)
    assert found.t_s.tolist() == [5.0, 5.25, 5.0]
    assert [math.isnan(acc) or acc for acc in found.acc_m.tolist()] == [True, True, 7.0]
    assert found.received_s.tolist() == [1e9] * 3


def test_statuses_and_strangers() -> None:
    """Greetings and last wills are distinguished from fixes; other sites' and short subjects stay as they are."""
    subjects = [
        b"fix.1.ul.person.a.status",
        b"fix.1.ul.person.a.status",
        b"fix.1.ul.person.a.status",
        b"fix.1.other.person.a",
        b"fix.1.ul",
        b"fix.1.ul.person.a",
    ]
    found = _rows(subjects, [b"online", b"offline", b"dancing", GOOD, GOOD, b"offline"])
    assert found.what.tolist() == [ONLINE, OFFLINE, FIX, FIX, FIX, FIX]
    device = b"fix.1.ul.person.a"
    assert found.names == [device, device, b"", *subjects[3:5], device]


@given(st.lists(st.sampled_from([GOOD, *BAD[:12]]), min_size=1, max_size=20))
def test_a_batch_is_its_rows(payloads: list[bytes]) -> None:
    """Decoding a batch gives what decoding each message alone gives."""
    subject = b"fix.1.ul.person.a"
    together = _rows([subject] * len(payloads), payloads)
    alone = [_rows([subject], [payload]) for payload in payloads]
    assert np.array_equal(together.t_s, np.array([one.t_s[0] for one in alone]), equal_nan=True)
    assert np.array_equal(together.lat_deg, np.array([one.lat_deg[0] for one in alone]), equal_nan=True)


def test_good_payload_is_json() -> None:
    """The example that the other tests stand on is an ordinary fix."""
    assert json.loads(GOOD)["lat"] == 52.5


@pytest.mark.parametrize("payload", [b"offline\0", b"\xef\xbb\xbfoffline\r\n\0\0"])
def test_bytes_around_a_status_do_not_matter(payload: bytes) -> None:
    """A status may have a byte order mark, and NULs or line ends after it."""
    found = _rows([b"fix.1.ul.person.a.status"], [payload])
    assert (found.what.tolist(), found.names) == ([OFFLINE], [b"fix.1.ul.person.a"])


def test_a_long_batch_is_its_rows() -> None:
    """Broken messages, greetings and exact times anywhere in a long batch stand in their own rows."""
    n = 3 * BATCH_DECODE + 5
    payloads = [b'{"tst":%d,"lat":1,"lon":2,"acc":%d}' % (row, row % 50) for row in range(n)]
    subjects = [b"fix.1.ul.person.d%d" % row for row in range(n)]
    payloads[BATCH_DECODE + 3] = b"broken"
    subjects[2 * BATCH_DECODE - 1], payloads[2 * BATCH_DECODE - 1] = b"fix.1.ul.person.x.status", b"offline"
    payloads[-1] = b'{"tst":1,"t":1.5,"lat":1,"lon":2}'
    found = _rows(list(subjects), payloads)
    expected = np.arange(n, dtype=np.float64)
    expected[[BATCH_DECODE + 3, 2 * BATCH_DECODE - 1]] = np.nan
    expected[-1] = 1.5
    assert np.array_equal(found.t_s, expected, equal_nan=True)
    assert np.flatnonzero(found.what).tolist() == [2 * BATCH_DECODE - 1]
    subjects[2 * BATCH_DECODE - 1] = b"fix.1.ul.person.x"
    assert found.names == subjects
    assert found.acc_m[:BATCH_DECODE].tolist() == [row % 50 for row in range(BATCH_DECODE)]


MARKER = b'{"kind":"vehicle","pseudonyms":{"20717":"00ff00ff00ff00ff","20718":"0123456789abcdef"}}'


@pytest.mark.parametrize("good", [0, 700])
def test_a_marker_has_the_pseudonyms_of_all_days(good: int) -> None:
    """`fix.<p>.forget` is a row of its own, whose kind and names stay with its sequence in parts and joined rows."""
    fixes = [b"fix.1.ul.person.a"] * good
    found = _rows([*fixes, b"fix.1.forget", *fixes], [*[GOOD] * good, MARKER, *[GOOD] * good])
    assert found.what.tolist() == [FIX] * good + [FORGET] + [FIX] * good
    marker = found.removals[good]
    assert marker.kind == 1
    names = np.array([marker.pseudonyms[20717], marker.pseudonyms[20718]], np.uint64).tobytes().hex()
    assert names == "00ff00ff00ff00ff0123456789abcdef"
    assert found.part(0, good).removals == found.part(good + 1, len(found)).removals == {}
    again = FixColumns.joined([found.part(0, good), found.part(good, len(found))])
    assert again.removals == found.removals


@pytest.mark.parametrize(
    "payload",
    [
        *BAD,
        b'{"kind":"ghost","pseudonyms":{}}',
        b'{"kind":"person"}',
        b'{"kind":"person","pseudonyms":{"today":"00ff00ff00ff00ff"}}',
        b'{"kind":"person","pseudonyms":{"-1":"00ff00ff00ff00ff"}}',
        b'{"kind":"person","pseudonyms":{"20717":"00ff"}}',
        b'{"kind":"person","pseudonyms":{"20717":"00FF00FF00FF00FG"}}',
        b'{"kind":"person","pseudonyms":{"20717":7}}',
    ],
    ids=range(len(BAD) + 7),
)
def test_a_marker_that_cannot_be_read_is_none(payload: bytes) -> None:
    """It is no fix either: it names no device, and nothing is judged."""
    found = _rows([b"fix.1.ul.person.a", b"fix.1.forget"], [GOOD, payload])
    assert found.removals == {}
    assert found.what.tolist() == [FIX, FORGET]
    assert found.names == [b"fix.1.ul.person.a", b""]


def test_a_device_called_forget_is_a_device() -> None:
    """A message under such a name is a fix."""
    found = _rows([b"fix.1.ul.person.forget", b"fix.1.ul.person.b"], [GOOD, b"{}"])
    assert found.removals == {}
    assert found.what.tolist() == [FIX] * 2

"""Sources of positions: NMEA sentences, a serial port, a real gpsd, GPX tracks."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device.receiver import LAT, LON, Receiver, epoch, gpsd, needs_gpsd, sentence
from headcount.device.gpsd import position_of_report
from headcount.device.nmea import NmeaReader
from headcount.device.position_sources import positions_from
from headcount.device.positions import DevicePosition
from headcount.device.recordings import read_gpx, read_nmea, replayed
from headcount.errors import DeviceLibraryError
from headcount.runtime.ports import free_port
from waiting import LIMIT_S


def read(lines: list[str], earliest: date = date(2026, 1, 1)) -> list[DevicePosition]:
    """The positions of sentences."""
    reader = NmeaReader(earliest)
    return [position for position in map(reader.read, lines) if position]


def test_a_position_of_nmea() -> None:
    """RMC gives time, position, speed and course, GGA altitude and the accuracy by its dilution of precision."""
    (position,) = read(epoch())
    assert position.t == datetime(2026, 11, 28, 10, 15, 30, tzinfo=UTC).timestamp()
    assert (position.lat, position.lon) == pytest.approx((LAT, LON), abs=1e-9)
    assert (position.acc, position.vel, position.cog, position.alt) == pytest.approx((4.5, 18.52, 84.4, 23.4))


def test_the_accuracy_of_gst_takes_precedence() -> None:
    """Standard deviations of 3 m in both axes are a radius of 68 % of 4.5 m; after 10 s they are not used any more."""
    gst = sentence("GNGST,101530.00,6.0,3.0,3.0,0.0,3.0,3.0,5.0")
    assert read([gst, *epoch(hdop="2.0")])[0].acc == pytest.approx(4.53, abs=0.01)
    assert read([gst, *epoch("101545.00", hdop="2.0")])[0].acc == 10.0
    late = [*epoch("235959.00"), sentence("GNRMC,000001.00,A,5240.4070,N,00834.3872,W,,,291126,,,A")]
    assert [position.acc for position in read(late)] == [4.5, 4.5]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "$",
        "$GNRMC",
        "$GNRMC,101530.00,A,5240.4070,N,00834.3872,W,010.0,084.4,281126,,,A*00",
        sentence("GNRMC,101530.00,V,,,,,,,281126,,,N"),
        sentence("GNRMC,101530.00,A,5240.4070,N,,W,010.0,084.4,281126,,,A"),
        sentence("GNRMC,,A,,,,,,,,,,"),
        sentence("GNRMC,999999.00,A,xx,N,00834.3872,W,010.0,084.4,991399,,,A"),
        sentence("GNRMC," + "1" * 500),
        epoch()[2][:-3],
    ],
)
def test_sentences_without_a_position(line: str) -> None:
    """Damaged, incomplete and invalid sentences give no position, and the reader goes on."""
    reader = NmeaReader()
    assert reader.read(line) is None
    assert [reader.read(each) is not None for each in epoch()] == [False, False, True]


def test_dates_of_old_receivers() -> None:
    """A date 1024 weeks too early is corrected where positions are live, and left alone in recordings."""
    wrapped = "130407"  # 27 November 2026 minus 1024 weeks
    (live,), (recorded,) = read(epoch(day=wrapped)), read(epoch(day=wrapped), date.min)
    assert datetime.fromtimestamp(live.t, UTC).date() == date(2026, 11, 27)
    assert datetime.fromtimestamp(recorded.t, UTC).date() == date(2007, 4, 13)


@given(st.text(max_size=120))
def test_no_line_raises(text: str) -> None:
    """Any text, also with a correct checksum, is read or ignored."""
    reader = NmeaReader()
    reader.read(text)
    for name in ("GNRMC", "GPGGA", "GNGSA", "GNGST"):
        reader.read(sentence(f"{name},{text}"))


@given(st.binary(max_size=200))
def test_no_report_of_gpsd_raises(line: bytes) -> None:
    """Any line of gpsd is read or ignored."""
    assert position_of_report(line) is None
    assert position_of_report(b'{"class":"TPV","mode":3,"time":' + line + b"}") is None


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that is plugged in."""
    plugged = Receiver()
    yield plugged
    plugged.close()


def first_of(source: str) -> DevicePosition:
    """The first position of a source."""
    stop = threading.Event()
    limit = threading.Timer(LIMIT_S, stop.set)
    limit.start()
    try:
        return next(positions_from(source, stop))
    finally:
        limit.cancel()
        stop.set()


@pytest.mark.parametrize("baud", ["", "@115200"])
def test_a_serial_receiver(receiver: Receiver, baud: str) -> None:
    """Positions of a serial port are those of the receiver, whatever the terminal was set to."""
    position = first_of(f"serial:{receiver.path}{baud}")
    assert (position.lat, position.lon) == pytest.approx((LAT, LON), abs=1e-9)
    assert abs(position.t - time.time()) < LIMIT_S


@needs_gpsd
def test_a_receiver_at_gpsd(receiver: Receiver) -> None:
    """A real gpsd that reads the receiver gives its positions, also when it starts later and is started again."""
    port, stop = free_port(0), threading.Event()
    positions = positions_from(f"gpsd:127.0.0.1:{port}", stop)
    limit = threading.Timer(LIMIT_S, stop.set)
    limit.start()
    try:
        for _ in range(2):
            with gpsd(receiver, port):
                position = next(positions)
            assert (position.lat, position.lon) == pytest.approx((LAT, LON), abs=1e-6)
            assert position.vel == pytest.approx(18.52, abs=0.1)
            assert position.cog == pytest.approx(84.4)
    finally:
        limit.cancel()
        stop.set()


GPX = """<?xml version="1.0"?>
<gpx version="1.1" creator="test" xmlns="http://www.topografix.com/GPX/1/1"><trk><trkseg>
<trkpt lat="52.6734" lon="-8.5731"><ele>23.4</ele><time>2019-11-28T10:15:30Z</time><hdop>1.2</hdop></trkpt>
<trkpt lat="52.6735" lon="-8.5731"><time>2019-11-28T11:15:40.5+01:00</time></trkpt>
<trkpt lat="52.6736" lon="-8.5731"><time>2019-11-28T10:15:31</time></trkpt>
</trkseg></trk></gpx>"""


def test_a_gpx_track_at_any_pace(tmp_path: Path) -> None:
    """A track is replayed in the order of time: from now on at its own pace, or all of it until now."""
    path = tmp_path / "walk.gpx"
    path.write_text(GPX)
    track = read_gpx(path)
    assert [position.t - track[0].t for position in track] == [0, 1, 10.5]
    assert (track[0].acc, track[0].alt) == (6.0, 23.4)
    began_s, stop = time.time(), threading.Event()
    fast = list(replayed(track, "fast", stop, now_s=1000.0))
    assert [position.t for position in fast] == [989.5, 990.5, 1000.0]
    real = replayed(track, "real", stop)
    assert [next(real).lat, next(real).lat] == [52.6734, 52.6736]
    assert time.time() - began_s >= 1
    stop.set()
    assert list(real) == []


def test_an_nmea_file(tmp_path: Path) -> None:
    """A recording of NMEA sentences has a position for each second."""
    path = tmp_path / "walk.nmea"
    path.write_text("\r\n".join([*epoch("101530.00"), *epoch("101531.00")]))
    first, second = read_nmea(path)
    assert second.t - first.t == 1
    assert [
        math.isclose(each.t, time.time(), abs_tol=LIMIT_S)
        for each in positions_from(f"nmea:{path}", threading.Event(), "fast")
    ] == [True, True]


@pytest.mark.parametrize(
    ("source", "text", "problem"),
    [
        ("gpx:x", "<gpx", "is not XML"),
        ("gpx:x", "<gpx/>", "has no position"),
        ("gpx:x", '<gpx><trkpt lat="1" lon="2"/></gpx>', "track point 1: no valid 'time'"),
        ("nmea:x", "", "has no position"),
        ("gpx:missing", "", "cannot be read"),
        ("serial:missing", "", "cannot be opened"),
        ("serial:x@12", "", "12 baud is not supported"),
        ("gpsd:x:y", "", "'y' is not a port"),
        ("usb", "", "is unknown"),
    ],
)
def test_sources_that_cannot_be_used(tmp_path: Path, source: str, text: str, problem: str) -> None:
    """An error names the source and its problem."""
    (tmp_path / "x").write_text(text)
    kind, separator, place = source.partition(":")
    source = f"{kind}:{tmp_path}/{place}" if separator and kind != "gpsd" else source
    with pytest.raises(DeviceLibraryError, match=problem):
        next(positions_from(source, threading.Event()))

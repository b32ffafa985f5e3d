"""A recording sent as if live."""

from __future__ import annotations

from pathlib import Path

from case_files import case
from system.running import Up, headcount
from system.senders import spot
from waiting import wait_until

WALKERS = {"p1": "glucksman-library", "p2": "glucksman-library", "p3": "schuman-building"}
CAR_PARK = "car-park-milford"


def write_recording(path: Path) -> int:
    """Three people and a car from last year, a fix every second, with two broken rows; how many are whole."""
    rows = ["t,device,kind,lat,lon,acc"]
    for second in range(2):
        for device, zone in WALKERS.items():
            lat, lon = spot(zone)
            rows.append(f"{1_760_000_000 + second},{device},person,{lat:.7f},{lon:.7f},6")
        lat, lon = spot(CAR_PARK)
        rows.append(f"{1_760_000_000.5 + second},c1,vehicle,{lat:.7f},{lon:.7f},")
    rows.insert(3, "soon,p1,person,52,-8,5")
    rows.insert(7, "1760000001,p 1,person,52,-8,5")
    path.write_text("\n".join(rows) + "\n")
    return len(rows) - 3


def test_a_recording_is_counted_as_if_it_happened_now(tmp_path: Path) -> None:
    """Everybody of the recording is counted where they were; broken rows are named, the others all accepted."""
    recording = tmp_path / "walk.csv"
    whole = write_recording(recording)
    with Up(tmp_path) as up:
        port = str(up.mqtt_port)
        run = headcount("publish", recording, "--port", port, "--qos", "1", "--quiet", cwd=tmp_path)
        assert run.returncode == 0, run.stderr
        assert f"{whole} fixes sent" in run.stderr
        assert f"2 of {whole + 2} rows are not valid" in run.stderr
        wait_until(lambda: up.counts()["site"] == (3, 1), "everybody is counted")
        counts = up.counts()
        assert counts["glucksman-library"] == (2, 0)
        assert counts["schuman-building"] == (1, 0)
        assert counts[CAR_PARK] == (0, 1)
        wait_until(lambda: up.metric("headcount_fixes_total") == whole, "verdicts")
        assert up.metric("headcount_fixes_total", verdict="accepted") == whole
        for name, warning in (("utf16", "in UTF-16"), ("epoch_first", "is a clock wrong?"), ("iso", "")):
            # a minute of positions elsewhere; one of them from 1970
            run = headcount("publish", case(f"{name}.csv"), "--port", port, "--speed", "10", cwd=tmp_path)
            assert run.returncode == 0, run.stderr
            assert warning in run.stderr
            assert f"{4 + (name == 'epoch_first')} fixes sent" in run.stderr


def test_times_in_milliseconds_are_reported(tmp_path: Path) -> None:
    """A recording in milliseconds is not sent: the error names the row, the value and its unit."""
    for command in (["publish", "--port", "1"], ["replay", "--site", str(case("base.geojson"))]):
        run = headcount(command[0], str(case("ms.csv")), *command[1:], cwd=tmp_path)
        assert run.returncode == 2
        assert "row 1: t is 1795800000000, which is in milliseconds" in run.stderr
        assert "Traceback" not in run.stderr


def test_a_missing_system_is_reported(tmp_path: Path) -> None:
    """Where nothing runs, `publish` and `simulate` end with 2 and name the addresses that they tried."""
    write_recording(tmp_path / "walk.csv")
    for command in (["publish", str(tmp_path / "walk.csv")], ["simulate"]):
        run = headcount(*command, "--port", "1", "--quiet", cwd=tmp_path)
        assert run.returncode == 2, run.stderr
        assert "127.0.0.1:1" in run.stderr
        assert "Traceback" not in run.stderr

"""`headcount cost` on data folders, with price files."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from headcount.cli.main import main
from headcount.history.catalog import Catalog
from headcount.history.manifest import Manifest, Segment
from headcount.history.objects import FolderStore
from headcount.messaging.stream_files import LogRecords
from headcount.services.cost import DayUsage, FleetUsage

HOUR_S = 3600.0
#: 2026-11-24T13:00:00Z
T0 = 1_795_525_200.0
PRICES = "".join(
    f'[{name}]\nprice = {price}\nsource = "a list"\ndate = 2026-11-28\n'
    for name, price in (
        ("disk_gb_month", 2),
        ("object_gb_month", 1),
        ("put_1000", 0.5),
        ("get_1000", 0.25),
        ("egress_gb", 3),
        ("core_hour", 10),
    )
)


def segment(dataset: str, hour: int, rows: int, size: int) -> Segment:
    """A segment of a whole hour."""
    start = T0 + hour * HOUR_S
    name = f"{dataset}/hour=x/{hour}.parquet"
    return Segment(name, rows, size, "", start, start + HOUR_S - 1, ("ul",))


def history(folder: Path) -> None:
    """Two hours of a history: 10 bytes a fix, an event of 40 bytes for each 10 fixes, and counts."""
    segments = [
        segment(dataset, hour, rows, size)
        for hour in range(2)
        for dataset, rows, size in (
            ("fixes", 1000, 10_000),
            ("events", 100, 4000),
            ("counts", 500, 1_000_000),
            ("minutes", 60, 2_000_000),
        )
    ]
    store = FolderStore(folder / "history")
    for each in segments:
        store.put(each.name, b"rows")
    Catalog(store).commit(lambda _: Manifest(segments=tuple(segments)))


def record(subject: bytes, payload: int, seconds: float, *, flags: int = 0) -> bytes:
    """A record of a stream's file."""
    length = 22 + len(subject) + payload + 8
    head = struct.pack("<IQQH", length, 1 | flags, round((T0 + seconds) * 1e9), len(subject))
    return head + subject + bytes(payload + 8)


def log(folder: Path) -> None:
    """Half an hour of a partition: fixes of 100 bytes, one of them with an acknowledged copy, and ticks."""
    msgs = folder / "jetstream" / "CORE" / "streams" / "FIX_0" / "msgs"
    msgs.mkdir(parents=True)
    fix, tick = b"fix.0.ul.person.p1", b"fix.0.tick"
    content = [record(fix, 100 - 30 - len(fix), t) for t in (0, 900)]
    content.append(record(b"$MQTT.msgs." + fix, 200 - 30 - 11 - len(fix), 900))
    content += [record(tick, 50 - 30 - len(tick), t) for t in (0, 1800)]
    content.append(record(fix, 5000, 900, flags=1 << 63))  # overwritten
    (msgs / "1.blk").write_bytes(b"".join(content))


def run(folder: Path, *arguments: str, prices: str | None = PRICES) -> Result:
    """The command for 1 000 devices that report each 36 s, which are 100 000 fixes an hour."""
    given = ["cost", "--data", str(folder), "--devices", "1000", "--interval", "36", *arguments]
    if prices is not None:
        path = folder / "prices.toml"
        path.write_text(f'currency = "EUR"\n{prices}')
        given += ["--prices", str(path)]
    return CliRunner().invoke(main, given)


def document(folder: Path, *arguments: str) -> dict[str, Any]:
    """The answer as JSON."""
    answer = run(folder, "--json", *arguments)
    assert answer.exit_code == 0, answer.output
    found: dict[str, Any] = json.loads(answer.stdout)
    return found | {each["part"]: each for each in found["parts"]}


def test_the_log_is_measured(tmp_path: Path) -> None:
    """Fixes have the bytes of their copies; ticks are separate; overwritten messages do not count."""
    log(tmp_path)
    found = LogRecords()
    found.add(tmp_path / "jetstream/CORE/streams/FIX_0/msgs/1.blk")
    assert (found.fixes, found.bytes, found.tick_bytes, found.hours) == (2, 400, 100, 0.5)


def test_amounts_and_costs_follow_from_bytes_and_prices(tmp_path: Path) -> None:
    """Each part is the measured bytes times fixes or hours times days times the price, and the sum has all of them."""
    history(tmp_path)
    log(tmp_path)
    found = document(tmp_path, "--hours", "10", "--days", "1,10", "--replicas", "3", "--egress-gb", "2")
    assert found["history: fixes"]["amounts"] == pytest.approx([0.01, 0.1])  # 1 000 000 fixes a day
    assert found["history: fixes"]["costs"] == pytest.approx([0.02, 0.2])
    assert found["history: events"]["amounts"] == pytest.approx([0.004, 0.04])
    assert found["history: counts"]["amounts"] == pytest.approx([0.024, 0.24])
    assert found["history: minutes"]["amounts"] == pytest.approx([19.2, 19.2])  # 400 days
    log_gb = 3 * (100_000 * 200 + 200) / 1e9
    assert found["log, one hour"]["amounts"] == pytest.approx([log_gb, log_gb])
    assert found["egress"]["costs"] == [6, 6]
    assert found["left_out"] == ["history: flows (not measured)", "CPU (not measured)"]
    costs = [part["costs"][1] or 0 for part in found["parts"]]
    assert found["totals"][1] == pytest.approx(sum(costs))


def test_an_object_store_has_requests(tmp_path: Path) -> None:
    """With --s3 the history has the price of an object store, and each flush has its requests."""
    history(tmp_path)
    found = document(tmp_path, "--s3", "--days", "1")
    (fixes_gb,) = found["history: fixes"]["amounts"]
    assert found["history: fixes"]["costs"] == pytest.approx([fixes_gb])
    assert found["S3 requests: put"]["amounts"] == pytest.approx([730 * (60 * 4 + 10)])
    assert found["S3 requests: put"]["costs"] == pytest.approx([730 * 250 / 1000 * 0.5])
    assert "S3 requests: put" not in document(tmp_path)


def test_a_load_test_gives_cpu_and_both_fleets(tmp_path: Path) -> None:
    """CPU is that of all parts of the load test; both fleets are those of the load test."""
    history(tmp_path)
    day = DayUsage(500, 300.0, FleetUsage(1_000_000, 360.0, 600.0), FleetUsage(1_000_000, 720.0, 1200.0))
    (tmp_path / "day.json").write_bytes(msgspec.json.encode(day))
    found = document(tmp_path, "--bench", str(tmp_path), "--days", "1", "--hours", "24")
    months = 730 / 24 * 2.4  # millions of fixes
    assert found["CPU"]["amounts"] == pytest.approx([0.1 * months])
    assert found["fleets"] == pytest.approx({"elastic": 2 * 730 * 10, "fixed": 4 * 730 * 10})
    text = run(tmp_path, "--bench", str(tmp_path)).output
    assert "all parts of the load test" in text
    assert re.search(r"elastic / fixed +0\.50", text)


def test_a_part_without_a_price_is_named(tmp_path: Path) -> None:
    """Without a price, a part has amounts, no costs, and is not in the sum; the text names it."""
    history(tmp_path)
    answer = run(tmp_path, prices=PRICES.replace("price = 2\n", ""))
    assert answer.exit_code == 0
    assert "history: fixes (no price)" in answer.output.replace("\n", " ")


def test_the_example_of_prices_is_complete(tmp_path: Path) -> None:
    """The price file that is printed can be used, and each price in it has a source and a date."""
    history(tmp_path)
    text = CliRunner().invoke(main, ["cost", "--example-prices"]).output
    assert text.count("source = ") == text.count("date = ") == 6
    prices = text.partition("\n[")[2]
    assert run(tmp_path, prices="[" + prices).exit_code == 0
    answer = run(tmp_path, prices=None)
    assert "USD a month" in answer.output


@pytest.mark.parametrize(
    ("prices", "problem"),
    [
        (PRICES.replace("date = 2026-11-28\n", "", 1), "date"),
        (PRICES.replace('source = "a list"\n', "", 1), "source"),
        (PRICES.replace("price = 2", "price = -2"), "disk_gb_month: -2"),
        (PRICES.replace("[egress_gb]", "[egres_gb]"), "egres"),
        ("not TOML", "prices.toml"),
    ],
)
def test_an_invalid_price_file_is_refused(tmp_path: Path, prices: str, problem: str) -> None:
    """The exit code is 2, and the error names the file and what is wrong in it."""
    history(tmp_path)
    answer = run(tmp_path, prices=prices)
    assert answer.exit_code == 2
    assert problem in answer.stderr
    assert "prices.toml" in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--days", "7,x"], "'7,x' is not a list of days"),
        (["--days", "0"], "'0' is not a list of days"),
        (["--bench", "nowhere"], "nowhere"),
    ],
)
def test_invalid_options_are_refused(tmp_path: Path, arguments: list[str], problem: str) -> None:
    """The exit code is 2, and the error names the value."""
    answer = run(tmp_path, *arguments)
    assert answer.exit_code == 2
    assert problem in answer.stderr


def test_an_empty_folder_measures_nothing(tmp_path: Path) -> None:
    """A new deployment has no bytes to multiply: each part is named as not measured."""
    found = document(tmp_path)
    assert found["totals"] == [0, 0, 0]
    assert "history: fixes (not measured)" in found["left_out"]


def test_a_figure_is_drawn(tmp_path: Path) -> None:
    """With --figure, the parts are also in an SVG file."""
    history(tmp_path)
    assert run(tmp_path, "--figure", str(tmp_path / "cost.svg")).exit_code == 0
    svg = (tmp_path / "cost.svg").read_text()
    assert svg.startswith("<svg")
    assert "365 days" in svg

"""The borders of the engine: empty batches, unknown senders, repeated keys, unusable snapshots."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from counting.running import NAMES, NO_VERDICT, Runner
from counting.walks import FIX, OFFLINE, ONLINE, START_S, walk
from headcount.counting.engine import Engine
from headcount.counting.fix_columns import I4, FixColumns
from headcount.counting.site import Site
from headcount.counting.site_file import parse_site
from headcount.errors import SnapshotError
from headcount.lab.chaos.scenarios import random_scenario
from headcount.messages.fixes import VERDICTS


@pytest.fixture(scope="module")
def site() -> Site:
    """A campus with some zones."""
    return parse_site(random_scenario(Random(3), 8).geojson, "test")


def at_centre(site: Site, device: list[int], what: list[int]) -> tuple[FixColumns, I4]:
    """Rows in the middle of the site, and the slots of their devices."""
    n = len(device)
    fixes = FixColumns(
        what=np.array(what, np.uint8),
        received_s=np.full(n, START_S),
        t_s=START_S + np.arange(n) / 8 - 1,
        lat_deg=np.full(n, site.lat0_deg),
        lon_deg=np.full(n, site.lon0_deg),
        acc_m=np.zeros(n),
    )
    return fixes, np.array(device, np.int32)


def test_nothing_comes_of_nothing(site: Site) -> None:
    """A new engine accepts an empty batch, has no events, counts no devices and can be saved."""
    engine = Engine(site, names=NAMES)
    step = engine.step(*at_centre(site, [], []))
    assert (len(step.verdicts), len(step.events), len(engine.advance(START_S))) == (0, 0, 0)
    assert not engine.counts(START_S).any()
    assert not Engine.restore(site, engine.snapshot()).counts(START_S).any()


def test_a_sender_without_a_slot_is_malformed(site: Site) -> None:
    """A fix of slot -1 is malformed and counted nowhere, also beside good ones."""
    engine = Engine(site, names=NAMES)
    slot = int(engine.slots([b"person.a"])[0])
    verdicts = engine.step(*at_centre(site, [-1, slot, -1], [FIX] * 3)).verdicts
    assert [VERDICTS[code] for code in verdicts.tolist()][::2] == ["malformed"] * 2
    assert VERDICTS[verdicts[1]] != "malformed"
    engine.advance(START_S)
    assert engine.counts(START_S)[0, :, 0].sum() <= 1


def test_a_status_has_no_verdict(site: Site) -> None:
    """Status rows have the code 255, of known devices and of others."""
    engine = Engine(site, names=NAMES)
    slot = int(engine.slots([b"vehicle.a"])[0])
    verdicts = engine.step(*at_centre(site, [slot, slot, -1], [ONLINE, OFFLINE, OFFLINE])).verdicts
    assert verdicts.tolist() == [NO_VERDICT] * 3


def test_a_key_has_one_slot(site: Site) -> None:
    """The same key has the same slot, within a call and later; kinds apart, and refused ones -1."""
    engine = Engine(site, names=NAMES)
    slots = engine.slots([b"person.a", b"vehicle.a", b"person.a", b"person.b"])
    assert slots.dtype == np.int32
    assert slots[0] == slots[2]
    assert len(set(slots.tolist())) == 3
    assert engine.slots([b"person.b", b"person.a"]).tolist() == [slots[3], slots[0]]
    assert [engine.key(int(slot)) for slot in slots] == [b"person.a", b"vehicle.a", b"person.a", b"person.b"]
    assert engine.slots([b"person.c", b"person.a"], lambda _: False).tolist() == [-1, slots[0]]


@pytest.mark.parametrize("what", [FIX, ONLINE, OFFLINE])
def test_a_silent_device_is_no_burden_for_ever(site: Site, what: int) -> None:
    """Two days after its last message, whatever it was, a device's state is deleted."""
    engine = Engine(site, names=NAMES)
    engine.step(*at_centre(site, engine.slots([b"person.a"]).tolist(), [what]))
    for hours in range(1, 50):
        engine.advance(START_S + 3600 * hours)
    assert engine.devices == 0


def test_a_snapshot_of_another_site_is_refused(site: Site) -> None:
    """A state is worth nothing on another site."""
    other = parse_site(random_scenario(Random(4), 8).geojson, "test")
    with pytest.raises(SnapshotError):
        Engine.restore(other, Engine(site, names=NAMES).snapshot())


def test_a_damaged_snapshot_is_refused(site: Site) -> None:
    """Whatever is cut off a snapshot's end, and what is none at all, is refused as one."""
    runner = Runner(site)
    runner.feed(walk(Random(5), random_scenario(Random(3), 8), 5, 100))
    data = runner.engine.snapshot()
    for cut in [0, 1, 10, *range(20, len(data), 97), len(data) - 1]:
        with pytest.raises(SnapshotError):
            Engine.restore(site, data[:cut])
    for other in (b"{}", b"\xff" * 100, data + b"\0"):
        with pytest.raises(SnapshotError):
            Engine.restore(site, other)

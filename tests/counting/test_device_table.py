"""The device table and its index, compared with a plain dict."""

from __future__ import annotations

from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from counting.running import FIRST_DAY, NAMES
from headcount.counting.device_table import DeviceTable
from headcount.counting.hash_index import NO_SLOT, HashIndex
from headcount.devices.pseudonyms import SitePseudonyms
from headcount.messages.times import DAY_S

SEEDS = st.integers(0, 2**63 - 1)
PREFIX = b"fix.3.ul."


@settings(max_examples=60)
@given(SEEDS)
def test_an_index_is_a_dict(seed: int) -> None:
    """Hashes that crowd the same places are added, found and removed as in a dict."""
    rng = Random(seed)
    index, known = HashIndex(), dict[int, int]()
    # few low bits: long runs of taken places
    hashes = [
        rng.randrange(-(2**40), 2**40) << 23 | rng.randrange(8) * 31 for _ in range(rng.choice((40, 900)))
    ]
    hashes = list(dict.fromkeys(hashes))
    for _ in range(30):
        if rng.random() < 0.7:
            new = [h for h in rng.sample(hashes, rng.randrange(len(hashes) // 4)) if h not in known]
            taken = set(known.values())
            slots = [slot for slot in range(len(hashes)) if slot not in taken][: len(new)]
            index.add(np.array(new, dtype=np.int64), np.array(slots, dtype=np.int32))
            known.update(zip(new, slots, strict=True))
        elif known:
            gone = set(rng.sample(sorted(known.values()), rng.randrange(len(known) + 1)))
            index.remove(np.array(sorted(gone), dtype=np.int32))
            known = {h: slot for h, slot in known.items() if slot not in gone}
        assert index.find(np.array(hashes)).tolist() == [known.get(h, NO_SLOT) for h in hashes]
        assert len(index) == len(known)


def loaded_table(devices: int, columns: dict[str, bytes], names: SitePseudonyms = NAMES) -> DeviceTable:
    """A new table with the devices of a dump."""
    table = DeviceTable(names)
    table.load(devices, columns)
    return table


@settings(max_examples=60)
@given(SEEDS)
def test_a_device_table_behaves_like_a_dict(seed: int) -> None:
    """Whatever is asked, refused, forgotten, dumped and loaded: each key keeps its slot and its state."""
    rng = Random(seed)
    table, known = DeviceTable(NAMES), dict[bytes, int]()
    table.set_prefix(0, PREFIX)
    keys = [b"%s.d%d" % (rng.choice((b"person", b"vehicle")), i) for i in range(rng.choice((5, 60, 700)))]
    strangers = [b"", b"person.d1", b"fix.4.ul.person.d1", PREFIX, PREFIX + b"ghost.d1", PREFIX + b"\xff.x"]

    def admit(key: bytes) -> bool:
        return not key.endswith(b"7")

    nameless = set[bytes]()
    for _ in range(25):
        deed = rng.random()
        if deed < 0.6:
            asked = rng.choices(keys, k=rng.randrange(1, 300))
            names = [PREFIX + key for key in asked]
            for _ in range(rng.choice((0, 3))):
                names.insert(rng.randrange(len(names) + 1), rng.choice(strangers))
            slots = table.slots(names, admit).tolist()
            for name, slot in zip(names, slots, strict=True):
                key = name.removeprefix(PREFIX)
                if name in strangers or not admit(key):
                    assert slot == NO_SLOT
                    continue
                nameless.discard(key)
                if key not in known:
                    assert slot not in known.values()
                    known[key] = slot
                    table.last_t_s[slot] = len(known)
                    table.used_s[slot] = DAY_S * (FIRST_DAY + rng.choice((0, 0, 1)))
                assert known[key] == slot
                assert table.key(slot) == key
        elif deed < 0.7:
            gone = rng.sample(sorted(known), rng.randrange(len(known) + 1))
            table.forget([known.pop(key) for key in gone])
            nameless -= set(gone)
        elif deed < 0.8:
            day = FIRST_DAY + rng.choice((0, 1))
            some = rng.sample(
                sorted(known.keys() - nameless), rng.randrange(len(known.keys() - nameless) + 1)
            )
            told = table.names(np.array([known[key] for key in some], np.int32), day).tolist()
            assert told == NAMES.many(some, day).tolist()
        elif deed < 0.9:
            state = {key: table.last_t_s[slot] for key, slot in known.items()}
            devices, columns = table.dump()
            assert not any(key in data for key in known for data in columns.values())
            table = loaded_table(devices, columns)
            table.set_prefix(0, PREFIX)
            known = {key: table.find(key) for key in known}
            nameless = set(known)
            assert {key: table.last_t_s[slot] for key, slot in known.items()} == state
        assert table.devices == len(known)
        assert table.nameless == len(nameless)
        assert table.taken().tolist() == sorted(known.values())
        assert [table.find(key) for key in keys] == [known.get(key, NO_SLOT) for key in keys]


def test_a_name_goes_with_its_device() -> None:
    """A device that reuses the slot of a forgotten one is published under its own pseudonym."""
    table = DeviceTable(NAMES)
    slots = table.slots([b"person.a", b"person.b"], lambda _: True)
    assert (
        table.names(slots, FIRST_DAY).tolist() == NAMES.many([b"person.a", b"person.b"], FIRST_DAY).tolist()
    )
    table.forget([int(slots[0])])
    again = table.slots([b"person.c", b"person.b"], lambda _: True)
    assert again.tolist() == slots.tolist()
    assert (
        table.names(again, FIRST_DAY).tolist() == NAMES.many([b"person.c", b"person.b"], FIRST_DAY).tolist()
    )


def test_a_nameless_slot_is_found_by_its_name_of_that_day_alone() -> None:
    """After a restore, a device finds its own slot by its pseudonym, but not without the day's key."""
    table = DeviceTable(NAMES)
    slots = table.slots([b"person.a", b"vehicle.a"], lambda _: True)
    table.used_s[slots] = [DAY_S * FIRST_DAY + 5.0, DAY_S * (FIRST_DAY + 1) + 7.0]
    dumped = table.dump()
    loaded = loaded_table(*dumped)
    assert [loaded.key(slot) for slot in (0, 1)] == [b"", b""]
    assert loaded.slots([b"vehicle.a", b"person.b", b"person.a"], lambda _: True).tolist() == [1, 2, 0]
    assert (loaded.nameless, loaded.key(0), loaded.key(1)) == (0, b"person.a", b"vehicle.a")
    destroyed = SitePseudonyms({FIRST_DAY + 1: NAMES._keys[FIRST_DAY + 1]}, "campus")
    late = loaded_table(*dumped, destroyed)
    assert late.find(b"person.a") == NO_SLOT
    assert late.slots([b"vehicle.a", b"person.a"], lambda _: True).tolist() == [1, 2]


def test_a_device_is_found_by_any_of_its_pseudonyms() -> None:
    """Any of its pseudonyms of several days finds a device, nameless or not, and no other device."""
    table = DeviceTable(NAMES)
    keys = [b"person.%d" % i for i in range(50)]
    slots = table.slots(keys, lambda _: True)
    table.used_s[slots] = DAY_S * FIRST_DAY
    table.names(slots[:20], FIRST_DAY)
    table.names(slots[20:30], FIRST_DAY + 1)
    for each in (table, loaded_table(*table.dump())):
        for row in (3, 25, 40):
            labels = {day: int(NAMES.many([keys[row]], day)[0]) for day in (FIRST_DAY, FIRST_DAY + 1)}
            assert each.called(0, labels).tolist() == [row]
            assert each.called(1, labels).tolist() == []
        assert each.called(0, {FIRST_DAY: 1}).tolist() == []
        assert each.called(0, {}).tolist() == []

"""Who has which slot: the roster and its index beside a plain dict."""

from __future__ import annotations

from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headcount.counting.index import NOTHING, Index
from headcount.counting.roster import NOBODY, Roster

SEEDS = st.integers(0, 2**63 - 1)
PREFIX = b"fix.3.ul."


@settings(max_examples=60)
@given(SEEDS)
def test_an_index_is_a_dict(seed: int) -> None:
    """Hashes that crowd the same places are added, found and removed as in a dict."""
    rng = Random(seed)
    index, known = Index(), dict[int, int]()
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
        assert index.find(np.array(hashes)).tolist() == [known.get(h, NOTHING) for h in hashes]
        assert len(index) == len(known)


@settings(max_examples=60)
@given(SEEDS)
def test_a_roster_is_a_dict(seed: int) -> None:
    """Whatever is asked, refused, forgotten, dumped and loaded: each key keeps its slot and its state."""
    rng = Random(seed)
    roster, known = Roster(), dict[bytes, int]()
    roster.prefix = PREFIX
    keys = [b"%s.d%d" % (rng.choice((b"person", b"vehicle")), i) for i in range(rng.choice((5, 60, 700)))]
    strangers = [b"", b"person.d1", b"fix.4.ul.person.d1", PREFIX, PREFIX + b"ghost.d1", PREFIX + b"\xff.x"]

    def admit(key: bytes) -> bool:
        return not key.endswith(b"7")

    for _ in range(25):
        deed = rng.random()
        if deed < 0.6:
            asked = rng.choices(keys, k=rng.randrange(1, 300))
            names = [PREFIX + key for key in asked]
            for _ in range(rng.choice((0, 3))):
                names.insert(rng.randrange(len(names) + 1), rng.choice(strangers))
            slots = roster.slots(names, admit).tolist()
            for name, slot in zip(names, slots, strict=True):
                key = name.removeprefix(PREFIX)
                if name in strangers or not admit(key):
                    assert slot == NOBODY
                    continue
                if key not in known:
                    assert slot not in known.values()
                    known[key] = slot
                    roster.last_t_s[slot] = roster.label[slot] = len(known)
                assert known[key] == slot
                assert roster.key(slot) == key
        elif deed < 0.8:
            gone = rng.sample(sorted(known), rng.randrange(len(known) + 1))
            roster.forget([known.pop(key) for key in gone])
        elif deed < 0.9:
            state = {key: roster.last_t_s[slot] for key, slot in known.items()}
            roster = Roster.load(*roster.dump())
            roster.prefix = PREFIX
            known = {key: roster.find(key) for key in known}
            assert {key: roster.last_t_s[slot] for key, slot in known.items()} == state
        assert roster.devices == len(known)
        assert roster.taken().tolist() == sorted(known.values())
        assert [roster.find(key) for key in keys] == [known.get(key, NOBODY) for key in keys]


def test_a_label_goes_with_its_device() -> None:
    """Who gets the slot of a forgotten device finds no label of it."""
    roster = Roster()
    slots = roster.slots([b"person.a", b"person.b"], lambda _: True)
    roster.label[slots] = 7
    roster.forget([int(slots[0])])
    again = roster.slots([b"person.c", b"person.b"], lambda _: True)
    assert again.tolist() == slots.tolist()
    assert roster.label[again].tolist() == [0, 7]

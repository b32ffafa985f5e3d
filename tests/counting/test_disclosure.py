"""Public counts."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings

from headcount.counting.disclosure import (
    GRID_S,
    SUPPRESSED,
    WITHHELD,
    Disclosure,
    as_public,
    disclosure_key,
    grid_before,
    on_grid,
    spread,
)
from headcount.counting.fix_columns import I4
from headcount.counting.site import Site
from small_site import feature, site_of, small_site, square

KEY = disclosure_key(b"a secret of this deployment")
AT_S = 1_795_525_200.0


def of_people(*people: int) -> I4:
    """Counts of people, no vehicles."""
    return np.array([[n, 0] for n in people], np.int32)


def zone(name: str, x: float, y: float, size: float) -> dict[str, Any]:
    """A zone of the small site's boundary, which is 10 by 10."""
    return feature(square(x, y, size), role="zone", id=name, type="area")


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Site, I4]:
    """Squares on a coarse grid, so that they nest, overlap and touch; and people, who are in squares."""
    boxes = draw(
        st.lists(
            st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(1, 4)).map(
                lambda b: (b[0], b[1], min(b[2], 10 - max(b[0], b[1])))
            ),
            min_size=1,
            max_size=9,
        )
    )
    site = site_of(*(zone(f"z{i}", x, y, size) for i, (x, y, size) in enumerate(boxes)))
    busy = draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 12)), max_size=25))
    counts = np.zeros((len(boxes) + 1, 2), np.int32)
    for x, y, people in busy:
        counts[0] += people
        for i, (west, south, size) in enumerate(boxes):
            counts[i + 1] += people * (west <= x < west + size and south <= y < south + size)
    return site, counts


class TestPublish:
    """Counts in, public numbers out."""

    @given(scenes(), st.integers(4, 9), st.integers(0, 10**6))
    @settings(max_examples=150, deadline=None)
    def test_small_counts_stay_hidden(self, scene: tuple[Site, I4], k: int, minute: int) -> None:
        """A count below k is never published, a large one only as a multiple of k less than k away, or not at all."""
        site, counts = scene
        public = Disclosure(site, k, KEY).publish(AT_S + GRID_S * minute, counts)
        assert (public[counts < k] == SUPPRESSED).all()
        assert (public[counts >= k + spread(k) - 1] != SUPPRESSED).all()
        is_number = (public != SUPPRESSED) & (public != WITHHELD)
        assert (public[is_number] > 0).all()
        assert (public[is_number] % k == 0).all()
        assert (np.abs(public[is_number] - counts[is_number]) < k).all()

    @given(scenes(), st.integers(4, 9))
    @settings(max_examples=150, deadline=None)
    def test_no_hidden_count_is_pinned(self, scene: tuple[Site, I4], k: int) -> None:
        """Public numbers leave each hidden count at least three values, the true one among them."""
        site, counts = scene
        disclosure = Disclosure(site, k, KEY)
        known = disclosure._relations
        assert known is not None
        public = disclosure.publish(AT_S, counts)[:, 0]
        low = np.zeros(len(known.names), np.int64)
        high = np.full(len(known.names), 1 << 40)
        # which counts are small may disclose too much by itself: rounding can't help there
        low[: known.zones], high[: known.zones] = disclosure.bounds(
            np.where(public == SUPPRESSED, SUPPRESSED, WITHHELD).astype(np.int32)
        )
        least_low, most_high = known.narrow(low, high)
        assume((most_high - least_low >= 2)[: known.zones].all())
        low[: known.zones], high[: known.zones] = disclosure.bounds(public)
        low, high = known.narrow(low, high)
        hidden = (public == SUPPRESSED) & (low[: known.zones] < k)
        assert ((high - low)[: known.zones][hidden] >= 2).all()
        assert (low[: known.zones] <= counts[:, 0]).all()
        assert (counts[:, 0] <= high[: known.zones]).all()

    @given(scenes(), st.integers(1, 9))
    @settings(max_examples=50, deadline=None)
    def test_same_answer_every_time(self, scene: tuple[Site, I4], k: int) -> None:
        """Another process gives the same answer all day, whatever it published before."""
        site, counts = scene
        one, other = Disclosure(site, k, KEY), Disclosure(site, k, KEY)
        day_s = AT_S // 86_400 * 86_400
        other.publish(day_s - GRID_S, counts + 1)
        assert np.array_equal(one.publish(day_s, counts), other.publish(day_s + 86_399, counts))

    @given(scenes(), st.integers(0, 10**6))
    @settings(max_examples=30, deadline=None)
    def test_one_is_everything(self, scene: tuple[Site, I4], minute: int) -> None:
        """With k = 1 the exact counts are published."""
        site, counts = scene
        assert np.array_equal(Disclosure(site, 1, KEY).publish(AT_S + minute, counts), counts)

    def test_rounding_is_right_on_average(self) -> None:
        """Over many days the mean of the published numbers is the count."""
        disclosure, counts = Disclosure(site_of(), 5, KEY), of_people(13)
        told = [disclosure.publish(day * 86_400.0, counts)[0, 0] for day in range(2000)]
        assert set(told) == {10, 15}
        assert abs(np.mean(told) - 13) < 0.3  # five standard errors

    def test_the_threshold_is_blurred(self) -> None:
        """The count at which a number appears differs between days, zones and kinds, equally often; in a day it is one."""
        disclosure = Disclosure(site_of(*(zone(f"z{i}", i, 0, 1) for i in range(6))), 5, KEY)
        thresholds = []
        for day in range(200):
            shown = [
                disclosure.publish(day * 86_400.0, of_people(100, *[count] * 6))[1:, 0] != SUPPRESSED
                for count in range(10)
            ]
            thresholds += np.argmax(shown, axis=0).tolist()
        values, times = np.unique(thresholds, return_counts=True)
        assert values.tolist() == [5, 6, 7]
        assert (np.abs(times / len(thresholds) - 1 / 3) < 0.07).all()

    def test_key_decides(self) -> None:
        """Without the key the direction of rounding is unpredictable."""
        site, counts = small_site(), np.full((6, 2), 7, np.int32)
        answers = {
            Disclosure(site, 5, disclosure_key(bytes([i]) * 16)).publish(AT_S, counts).tobytes()
            for i in range(8)
        }
        assert len(answers) > 4

    def test_a_revealing_number_is_rounded_the_other_way(self) -> None:
        """Three zones of at least six in one of fifteen at most nineteen: the numbers don't reveal that a fourth is nearly empty."""
        parts = [zone(f"p{i}", 2 * i, 0, 2) for i in range(4)]
        outer = feature(
            {
                "type": "Polygon",
                "coordinates": [[[0, 50], [0.008, 50], [0.008, 50.002], [0, 50.002], [0, 50]]],
            },
            role="zone",
            id="outer",
            type="area",
        )
        disclosure = Disclosure(site_of(outer, *parts), 5, KEY)
        changed = 0
        for day in range(300):
            counts = of_people(40, 18, 6, 6, 6, 0)
            public = disclosure.publish(day * 86_400.0, counts)[:, 0]
            if (public[2:5] == 10).all():  # each at least 6, by chance
                changed += 1
                assert public[1] == 20
        assert changed > 0

    def test_overlap_and_union_are_counted_too(self) -> None:
        """Of two zones that overlap, who is in both and who is in neither counts as hidden as well."""
        site = site_of(zone("a", 0, 0, 4), zone("b", 2, 0, 4), zone("c", 2.5, 0.5, 1))
        known = Disclosure(site, 5, KEY)._relations
        assert known is not None
        assert {"a+b in site", "a+b twice", "a+b twice elsewhere"} <= set(known.names)

    def test_four_thousand_zones_are_no_burden(self) -> None:
        """The largest site is prepared within seconds, an instant published within a second."""
        cells = [zone(f"z{x}-{y}", x / 6.3, y / 6.3, 0.15) for x in range(62) for y in range(62)]
        disclosure = Disclosure(site_of(*cells), 5, KEY)
        counts = np.full((len(cells) + 1, 2), 6, np.int32)
        counts[0] = counts[1:].sum(axis=0)
        assert disclosure.publish(AT_S, counts).shape == counts.shape


def test_grid_is_whole_minutes() -> None:
    """Counts of whole minutes are published."""
    assert on_grid(AT_S)
    assert not on_grid(AT_S + 0.1)
    assert not on_grid(AT_S + 30)
    assert grid_before(AT_S + 59.9) == AT_S
    assert grid_before(AT_S) == AT_S


@pytest.mark.parametrize(("number", "text"), [(SUPPRESSED, "<7"), (WITHHELD, None), (14, 14)])
def test_numbers_as_json(number: int, text: object) -> None:
    """Hidden, withheld and published numbers have distinct forms."""
    assert as_public(number, 7) == text

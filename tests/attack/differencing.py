"""An attack on the public counts: what can be learnt about hidden counts?

    python tests/attack/differencing.py --seed 7 --hours 6

A campus with zones that nest, overlap and divide others without a rest (campus.py) is peopled at
random. The attacker knows the map, the method and how people move, and sees what the public sees:
every zone at every instant that is published. It does not have the key and no accomplice. It tries

deduction   at one instant: a zone less the zones in it, sums of zones that make up another, overlaps;
            all of it together, by bounds on every zone and on every piece of ground
repetition  the same question again, the history instead of the live numbers, another server
standstill  bounds of several instants put together while nothing seems to change
crossing    "<5" just before or after a number: that was 4, as people come and go one by one
averages    a zone's mean over some minutes less the means of those in it: rounding averages out
learning    other days known, truth included: what was it most often when it looked like this?
own devices phones of the attacker, brought into a zone one by one until a number appears

The control is the same attack on what a threshold alone would publish: small counts hidden, others
exact, every ten seconds. It must find a lot, or the attack is no attack. Figures are the shares of
hidden counts: claimed, and right. `prior` is the best guess from a zone's own line of "<5" and numbers
alone. docs/concepts/public-counts.md states the guarantees.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations, cycle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script it is no test

from attack.campus import START_S, STEP_S, ZONES, Campus, Day
from headcount.counting.disclosure import GRID_S, SUPPRESSED, WITHHELD, Disclosure, disclosure_key

I4 = NDArray[np.int32]
I8 = NDArray[np.int64]
Bool = NDArray[np.bool_]
#: An instant and its exact counts → what is published of them.
CountsOf = Callable[[float, I4], I4]

K = 5
#: The number of counts at which a number may appear; the first is K.
SPREAD = 3
NO_MEMBER = 1_000_000  # more than there are: a bound without information
ROUNDS = 60
WINDOW = 5
#: Days of which a learner knows everything. It has never seen the ones it is tried on.
LEARNT_DAYS = 12
TRIED_DAYS = 6
OWN_DEVICE_TRIES, OWN_DEVICE_DAYS = 200, 20
#: A learner trusts what it has seen at least so often.
SEEN_ENOUGH = 20


@dataclass(frozen=True)
class Published:
    """A day as the public sees it, and what is kept for the judgement."""

    numbers: I4  # [T, Z] as `Disclosure` publishes them
    low: I8  # [T, Z] what a number means
    high: I8
    truth: I4  # [T, Z]; for the judge, not for the attacker

    @property
    def hidden(self) -> Bool:
        """[T, Z]: which counts are to be found out."""
        return np.asarray(self.numbers == SUPPRESSED)


@dataclass(frozen=True)
class Claims:
    """The claims of an attack about hidden counts."""

    hidden: int
    claimed: int
    right: int

    @property
    def share_right(self) -> float:
        """Of what was claimed; 0 of nothing."""
        return self.right / self.claimed if self.claimed else 0.0


def judge(seen: Published, claimed: Bool, values: I4 | I8) -> Claims:
    """Compare an attack's claims with what was the case."""
    claimed = claimed & seen.hidden
    right: Bool = claimed & (values == seen.truth)
    return Claims(int(seen.hidden.sum()), int(claimed.sum()), int(right.sum()))


# --- what is published ---------------------------------------------------------------------------
def public(campus: Campus, day: Day, key: bytes) -> Published:
    """By headcount's own method."""
    step = round(GRID_S / STEP_S)
    times, truth = day.times_s[::step], day.counts[::step]
    disclosure = Disclosure(campus.site, K, key)
    numbers = np.array([publish(disclosure, *at) for at in zip(times.tolist(), truth, strict=True)])
    low = np.where(numbers == SUPPRESSED, 0, np.maximum(K, numbers - K + 1))
    high = np.where(numbers == SUPPRESSED, K + SPREAD - 2, numbers + K - 1)
    high = np.where(numbers == WITHHELD, NO_MEMBER, high)
    return Published(numbers, low.astype(np.int64), high.astype(np.int64), truth)


def publish(disclosure: Disclosure, at_s: float, counts: I4) -> I4:
    """One instant's public numbers of people."""
    numbers: I4 = disclosure.publish(at_s, np.stack([counts, np.zeros_like(counts)], axis=1))[:, 0]
    return numbers


def threshold_only(day: Day) -> Published:
    """By a threshold and nothing else, all the time."""
    small = day.counts < K
    numbers = np.where(small, SUPPRESSED, day.counts)
    low, high = np.where(small, 0, day.counts), np.where(small, K - 1, day.counts)
    return Published(numbers, low.astype(np.int64), high.astype(np.int64), day.counts)


# --- deduction -----------------------------------------------------------------------------------
class Map:
    """Relations of zones by the map alone, found by trying all sets of zones, without code of headcount."""

    def __init__(self, campus: Campus) -> None:
        """Work out pieces of ground, packings and coverings."""
        self.members = campus.members
        self.zones = len(campus.members)
        pieces = np.unique(campus.members.T, axis=0)
        self.pieces = pieces[pieces.any(axis=1)].T  # [Z, pieces]
        masks = [sum(1 << int(p) for p in np.flatnonzero(row)) for row in self.pieces]
        self.packings = [(b, f) for b in range(self.zones) for f in _packings(b, masks)]
        self.coverings = [(b, f) for b in range(self.zones) for f in _coverings(b, masks)]

    def narrow(self, low: I8, high: I8) -> tuple[I8, I8]:
        """Bounds on all zones [T, Z] after all deductions."""
        n, pieces = self.pieces.shape
        low = np.concatenate([low, np.zeros((len(low), pieces), np.int64)], axis=1)
        high = np.concatenate([high, np.full((len(high), pieces), NO_MEMBER)], axis=1)
        of_pieces = [(b, tuple(n + np.flatnonzero(self.pieces[b]))) for b in range(n)]
        for _ in range(ROUNDS):
            before = low.copy(), high.copy()
            for whole, parts in (*self.packings, *of_pieces):  # whole >= the sum of parts
                _at_least(low, high, whole, list(parts))
            for whole, parts in (*self.coverings, *of_pieces):  # whole <= the sum of parts
                _at_most(low, high, whole, list(parts))
            if np.array_equal(low, before[0]) and np.array_equal(high, before[1]):
                break
        return low[:, :n], high[:, :n]


def _packings(whole: int, masks: list[int]) -> Iterator[tuple[int, ...]]:
    """Largest sets of zones in `whole` that share nothing."""
    inside = [z for z, m in enumerate(masks) if z != whole and m & ~masks[whole] == 0]
    for family in _disjoint(inside, masks):
        if family and all(any(masks[z] & masks[f] for f in family) for z in inside):
            yield family


def _disjoint(zones: list[int], masks: list[int], taken: int = 0) -> Iterator[tuple[int, ...]]:
    if not zones:
        yield ()
        return
    first, *others = zones
    yield from _disjoint(others, masks, taken)
    if not masks[first] & taken:
        for family in _disjoint(others, masks, taken | masks[first]):
            yield (first, *family)


def _coverings(whole: int, masks: list[int]) -> Iterator[tuple[int, ...]]:
    """Up to four zones that leave nothing of `whole` over."""
    others = [z for z, m in enumerate(masks) if z != whole and m & masks[whole]]
    for size in range(1, 5):
        for family in combinations(others, size):
            covered = 0
            for zone in family:
                covered |= masks[zone]
            if masks[whole] & ~covered == 0:
                yield family


def _at_least(low: I8, high: I8, whole: int, parts: list[int]) -> None:
    total = low[:, parts].sum(axis=1)
    low[:, whole] = np.maximum(low[:, whole], total)
    for part in parts:
        high[:, part] = np.minimum(high[:, part], high[:, whole] - (total - low[:, part]))
        total = low[:, parts].sum(axis=1)


def _at_most(low: I8, high: I8, whole: int, parts: list[int]) -> None:
    total = high[:, parts].sum(axis=1)
    high[:, whole] = np.minimum(high[:, whole], total)
    for part in parts:
        low[:, part] = np.maximum(low[:, part], low[:, whole] - (total - high[:, part]))


def deduction(seen: Published, known: Map) -> tuple[Claims, I8, I8]:
    """Small counts with one possible value left; and the bounds of all."""
    low, high = known.narrow(seen.low, seen.high)
    return judge(seen, (low == high) & (high < K), low), low, high


# --- time ----------------------------------------------------------------------------------------
def standstill(seen: Published, low: I8, high: I8) -> Claims:
    """Bounds of some instants together, where a zone and the site look the same in all of them."""
    same = (seen.numbers == np.roll(seen.numbers, 1, axis=0)) & (seen.numbers[:, :1] >= 0)
    narrow_low, narrow_high = low.copy(), high.copy()
    for back in range(1, WINDOW):
        still = np.logical_and.reduce([np.roll(same, shift, axis=0) for shift in range(back)])
        still[:back] = False
        narrow_low = np.where(still, np.maximum(narrow_low, np.roll(low, back, axis=0)), narrow_low)
        narrow_high = np.where(still, np.minimum(narrow_high, np.roll(high, back, axis=0)), narrow_high)
    return judge(seen, narrow_low == narrow_high, narrow_low)


def crossing(seen: Published) -> Claims:
    """Hidden now, a number before or after: k - 1."""
    shown = seen.numbers >= K
    beside = np.zeros_like(shown)
    beside[1:] |= shown[:-1]
    beside[:-1] |= shown[1:]
    return judge(seen, beside, np.full_like(seen.numbers, K - 1))


def averages(seen: Published, known: Map) -> Claims:
    """A zone's mean over some instants less the means of the others in a packing that has no rest."""
    middle = np.where(seen.numbers == SUPPRESSED, (K - 1) / 2, seen.numbers).astype(float)
    middle[seen.numbers == WITHHELD] = np.nan
    weights = np.ones(2 * WINDOW + 1) / (2 * WINDOW + 1)
    mean = np.apply_along_axis(lambda line: np.convolve(line, weights, "same"), 0, middle)
    claimed = np.zeros_like(seen.hidden)
    values = np.zeros_like(seen.numbers)
    for whole, parts in known.packings:
        if not (known.members[list(parts)].any(axis=0) == known.members[whole]).all():
            continue
        for zone in parts:
            others = [part for part in parts if part != zone]
            left = mean[:, whole] - mean[:, others].sum(axis=1)
            sure = np.isfinite(left) & (seen.numbers[:, others] >= K).all(axis=1)
            claimed[:, zone] |= sure
            values[:, zone] = np.where(sure, np.clip(np.nan_to_num(left).round(), 0, K - 1), values[:, zone])
    return judge(seen, claimed, values)


# --- learning ------------------------------------------------------------------------------------
Look = Callable[[Published, int, int], Hashable]


class Observations:
    """Features of a hidden count that the public sees."""

    def __init__(self, known: Map) -> None:
        """For each zone: the smallest one around it, and others in that which don't overlap."""
        members = known.members
        size = members.sum(axis=1)
        self._around: list[int | None] = []
        self._beside: list[list[int]] = []
        for zone, row in enumerate(members):
            around = [b for b in range(len(members)) if size[b] > size[zone] and (row <= members[b]).all()]
            best = min(around, key=lambda b: (size[b], b), default=None)
            families = [f for b, f in known.packings if b == best and zone in f]
            self._around.append(best)
            self._beside.append([z for z in max(families, key=len, default=()) if z != zone])

    def line(self, seen: Published, at: int, zone: int) -> Hashable:
        """The zone's own line: how long it has been and will be hidden. This is the prior."""
        return zone, self._until_shown(seen, at, zone, -1), self._until_shown(seen, at, zone, 1)

    def difference(self, seen: Published, at: int, zone: int) -> Hashable:
        """The zone around less the others in it."""
        around = self._around[zone]
        if around is None:
            return zone, None
        row = seen.numbers[at]
        beside = row[self._beside[zone]]
        left = row[around] - int(np.where(beside >= 0, beside, 1).sum())
        return zone, int(np.clip(left, -6, 12)), bool((beside >= 0).all())

    def line_and_difference(self, seen: Published, at: int, zone: int) -> Hashable:
        """The line, more coarsely to have enough samples, and the difference."""
        return self.difference(seen, at, zone), self._nearest(seen, at, zone)

    def line_and_level(self, seen: Published, at: int, zone: int) -> Hashable:
        """The same with the level of the surrounding zone."""
        around = self._around[zone]
        level = None if around is None else min(int(seen.numbers[at, around]), 8 * K)
        return zone, level, self._nearest(seen, at, zone)

    def everything(self, seen: Published, at: int, zone: int) -> Hashable:
        """All of it together."""
        return self.line_and_level(seen, at, zone), self.difference(seen, at, zone)

    def _nearest(self, seen: Published, at: int, zone: int) -> int:
        return min(self._until_shown(seen, at, zone, -1), self._until_shown(seen, at, zone, 1))

    @staticmethod
    def _until_shown(seen: Published, at: int, zone: int, step: int) -> int:
        for away in range(1, WINDOW + 1):
            if not 0 <= at + step * away < len(seen.numbers):
                break
            if seen.numbers[at + step * away, zone] >= K:
                return away
        return WINDOW + 1


def learn(days: list[Published], looks: list[Look]) -> list[dict[Hashable, Counter[int]]]:
    """Count the true values of hidden counts by their features."""
    tables: list[dict[Hashable, Counter[int]]] = [defaultdict(Counter) for _ in looks]
    for day in days:
        for at, zone in np.argwhere(day.hidden).tolist():
            for table, look in zip(tables, looks, strict=True):
                table[look(day, at, zone)][int(day.truth[at, zone])] += 1
    return tables


def guess(day: Published, looks: list[Look], tables: list[dict[Hashable, Counter[int]]]) -> Claims:
    """The likeliest value of each hidden count, by the first look that was seen often enough."""
    values = np.zeros_like(day.numbers)
    for at, zone in np.argwhere(day.hidden).tolist():
        for look, table in zip(looks, tables, strict=True):
            seen = table.get(look(day, at, zone))
            if seen is not None and seen.total() >= SEEN_ENOUGH:
                values[at, zone] = seen.most_common(1)[0][0]
                break
    return judge(day, day.hidden, values)


# --- own devices ---------------------------------------------------------------------------------
def own_devices(
    campus: Campus, day: Day, counts_of: list[CountsOf], rng: np.random.Generator, guess: int
) -> Claims:
    """Bring devices into a zone until a number appears, and claim that the zone counts `guess` then.

    Each of `counts_of` publishes with another key, as on another day.
    """
    times = np.flatnonzero(np.isin(day.times_s % GRID_S, [0.0]))
    small = np.argwhere(day.counts[times] < K)
    claimed = right = 0
    tries = rng.permutation(small)[:OWN_DEVICE_TRIES].tolist()
    for publishes, (at, zone) in zip(cycle(counts_of), tries, strict=False):
        at_s, counts = float(day.times_s[times[at]]), day.counts[times[at]].copy()
        truth = int(counts[zone])
        ground = campus.members[zone]
        inside = ~(ground & ~campus.members).any(axis=1)  # the zones around it, and itself
        for brought in range(1, 4 * K):
            counts[inside] += 1
            if publishes(at_s, counts)[zone] >= K:
                claimed += 1
                right += guess - brought == truth
                break
    return Claims(len(tries), claimed, right)


# --- all of it -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Report:
    """The result of the attack."""

    deduced: Claims
    fewest_values: int  # that a hidden count had left
    unsound: int  # hidden counts outside the bounds: the attack's own mistakes
    repetition: int  # answers that differed when asked again
    still: Claims
    crossed: Claims
    averaged: Claims
    prior: list[float]  # shares right, one a day
    learnt: list[float]
    withheld: float  # share of all numbers
    own_devices: Claims
    control_deduced: Claims
    control_crossed: Claims
    control_own_devices: Claims

    def text(self) -> str:
        """The report in words."""
        prior, learnt = np.mean(self.prior), np.mean(self.learnt)
        lines = [
            f"hidden counts            {self.deduced.hidden}; withheld {self.withheld:.2%} of all numbers",
            f"deduction                {self.deduced.claimed} found; {self.fewest_values} values left at least",
            f"repetition               {self.repetition} answers differed",
            f"standstill               {_published(self.still)}",
            f"crossing                 {_published(self.crossed)}",
            f"averages                 {_published(self.averaged)}",
            f"learning                 {learnt:.1%} right; prior {prior:.1%}",
            f"own devices              {_published(self.own_devices)}",
            f"control: deduction       {_published(self.control_deduced)}",
            f"control: crossing        {_published(self.control_crossed)}",
            f"control: own devices     {_published(self.control_own_devices)}",
        ]
        return "\n".join(lines)


def _published(claims: Claims) -> str:
    return f"{claims.claimed} of {claims.hidden} claimed, {claims.share_right:.1%} of them right"


def attack(seed: int, hours: float) -> Report:
    """Everything, on a campus from a seed."""
    campus, rng = Campus(), np.random.default_rng(seed)
    known = Map(campus)
    day = campus.day(rng, hours)
    key = disclosure_key(rng.bytes(32))
    seen = public(campus, day, key)
    keys = [disclosure_key(rng.bytes(32)) for _ in range(OWN_DEVICE_DAYS)]
    servers: list[CountsOf] = [partial(publish, Disclosure(campus.site, K, each)) for each in keys]
    deduced, low, high = deduction(seen, known)
    inside = (low <= seen.truth) & (seen.truth <= high)
    control = threshold_only(day)
    control_deduced, _, _ = deduction(control, known)
    looks = Observations(known)
    learners: dict[str, list[Look]] = {
        "prior": [looks.line, _zone],
        "learnt": [looks.everything, looks.line_and_difference, looks.line_and_level, looks.line, _zone],
    }
    learnt_days = [_some_day(campus, rng, hours) for _ in range(LEARNT_DAYS)]
    tried_days = [seen, *(_some_day(campus, rng, hours) for _ in range(TRIED_DAYS - 1))]
    shares = {}
    for name, each in learners.items():
        tables = learn(learnt_days, each)
        shares[name] = [guess(tried, each, tables).share_right for tried in tried_days]
    return Report(
        deduced=deduced,
        fewest_values=int((high - low + 1)[seen.hidden & (low < K)].min(initial=K)),
        unsound=int((~inside & seen.hidden).sum()),
        repetition=_repetition(campus, day, key, seen, rng),
        still=standstill(seen, low, high),
        crossed=crossing(seen),
        averaged=averages(seen, known),
        prior=shares["prior"],
        learnt=shares["learnt"],
        withheld=float((seen.numbers == WITHHELD).mean()),
        own_devices=own_devices(campus, day, servers, rng, guess=K + SPREAD // 2),
        control_deduced=control_deduced,
        control_crossed=crossing(control),
        control_own_devices=own_devices(campus, day, [lambda _, counts: counts], rng, guess=K),
    )


def _zone(_: Published, __: int, zone: int) -> Hashable:
    return zone


def _some_day(campus: Campus, rng: np.random.Generator, hours: float) -> Published:
    return public(campus, campus.day(rng, hours), disclosure_key(rng.bytes(32)))


def _repetition(campus: Campus, day: Day, key: bytes, seen: Published, rng: np.random.Generator) -> int:
    """Ask another server, in another order, some of it twice."""
    other = Disclosure(campus.site, K, key)
    step = round(GRID_S / STEP_S)
    order = rng.integers(len(seen.numbers), size=2 * len(seen.numbers))
    answers = (publish(other, float(day.times_s[i * step]), day.counts[i * step]) for i in order)
    return sum(not np.array_equal(answer, seen.numbers[i]) for i, answer in zip(order, answers, strict=True))


def main() -> None:
    """Attack, and print the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="of people, days and key")
    parser.add_argument("--hours", type=float, default=6.0, help="length of each day")
    options = parser.parse_args()
    print(f"{len(ZONES)} zones, days of {options.hours:g} h from {START_S}, seed {options.seed}")
    print(attack(options.seed, options.hours).text())


if __name__ == "__main__":
    main()

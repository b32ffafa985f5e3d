"""An attack on public flows: which hidden numbers of people follow from what is published?

    python tests/attack/flow_differencing.py --seed 7 --days 6

People of a campus (campus.py) walk between its zones, which nest and tile each other. The attacker knows the
map and the method, and sees every public number of arrivals, departures, dwell times and trips. It does not have the key. It tries

spans        answers for overlapping spans, subtracted from each other
margins      the trips from a zone, and its departures; the dwell times of a zone, and its departures
nesting      a zone, and the zones that make it up
bounds       all of these together, as bounds on every number, until nothing changes
best guess   other days known, truth included: the likeliest value of a hidden number by its zone, table and neighbours

The control is the same attack on exact numbers with a threshold alone, where row sums are published too and
spans are free: it must find a lot, or the attack is no attack.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script it is no test

from attack.campus import START_S, ZONES, Campus
from headcount.counting.cell_disclosure import CellDisclosure
from headcount.counting.disclosure import SUPPRESSED
from headcount.history.flows import OUTSIDE, FlowCell, flows
from headcount.history.stays import US, ZoneEvent

K, SPREAD = 5, 3
DAY_S, HOUR_S = 86_400, 3600
HOURS, PEOPLE = 8, 120
MAX_PEOPLE = 1_000_000
ROUNDS = 40
SEEN_ENOUGH = 20
NAMES = [name for name in ZONES if name != "site"]

#: Table, zone, other, and the hour of arrivals and departures (-1: the day).
Cell = tuple[str, str, str, int]
#: whole <= sum of parts, and each part <= whole (those are different people of one place).
Relation = tuple[list[Cell], list[Cell]]


@dataclass(frozen=True)
class PublishedDay:
    """The public numbers of a day, and the truth for the judge."""

    numbers: dict[Cell, int]
    truth: dict[Cell, int]

    @property
    def hidden(self) -> list[Cell]:
        """The cells to be found out."""
        return [cell for cell, number in self.numbers.items() if number == SUPPRESSED]


def walk(campus: Campus, rng: np.random.Generator, day: int) -> list[ZoneEvent]:
    """Events of people who go from place to place."""
    cells = [np.flatnonzero(campus.members[z]) for z in range(1, len(campus.names))]
    weights = rng.gamma(0.8, size=len(cells))
    weights /= weights.sum()
    found = []
    for person in range(PEOPLE):
        inside: set[str] = set()
        t_s = START_S + day * DAY_S + rng.random() * 4 * HOUR_S
        moves = 1 + rng.geometric(0.3)
        for move in range(moves + 1):
            new: set[str] = set()
            if move < moves:
                place = rng.choice(cells[rng.choice(len(cells), p=weights)])
                new = {name for name, row in zip(campus.names, campus.members, strict=True) if row[place]}
            found += [
                ZoneEvent("campus", "person", f"{person:016x}", round(t_s * US), zone, zone in new, "moved")
                for zone in sorted(new ^ inside)
            ]
            inside, t_s = new, t_s + 20 + rng.exponential(1800)
    return found


def people_of(events: list[ZoneEvent], day: int) -> dict[Cell, int]:
    """The people in every cell that is published: zero where no one is."""
    start_s = START_S + day * DAY_S
    truth: dict[Cell, int] = dict.fromkeys(_all_cells(), 0)
    for hour in range(24 - START_S % DAY_S // HOUR_S):
        for cell, numbers in flows(events, start_s + hour * HOUR_S).items():
            if cell.zone != "site":
                truth[_name(cell, hour)] = truth.get(_name(cell, hour), 0) + numbers.people
    return truth


def _name(cell: FlowCell, hour: int) -> Cell:
    hourly = cell.table in ("arrivals", "departures")
    return cell.table, cell.zone, cell.other, min(hour, HOURS - 1) if hourly else -1


def _all_cells() -> Iterator[Cell]:
    ends = [*NAMES, OUTSIDE]
    for zone in NAMES:
        for hour in range(HOURS):
            yield "arrivals", zone, "", hour
            yield "departures", zone, "", hour
        for low in ("0", "60", "300", "900", "1800", "3600", "7200", "14400", "28800", "unknown"):
            yield "dwell", zone, low, -1
    for origin in ends:
        for destination in ends:
            yield "trips", origin, destination, -1


def publish(truth: dict[Cell, int], day: int, key: bytes) -> PublishedDay:
    """By headcount's own method."""
    disclosure = CellDisclosure(K, key)
    numbers = {
        cell: disclosure.publish(f"campus|{'|'.join(map(str, cell))}|{day}", people)
        for cell, people in truth.items()
    }
    return PublishedDay(numbers, truth)


def relations(campus: Campus) -> list[Relation]:
    """Whole and parts: of zones on the map, and of tables.

    People of a whole are at most those of its parts together, and at least those of each part. With bounded
    contribution some of these may not hold; the attacker takes them for true.
    """
    found: list[Relation] = []
    members = dict(zip(campus.names, campus.members, strict=True))
    for whole in NAMES:
        inside = [z for z in NAMES if z != whole and not (members[z] & ~members[whole]).any()]
        tiling = [
            z for z in inside if not any(o != z and (members[z] & ~members[o]).sum() == 0 for o in inside)
        ]
        is_tiled = bool(tiling) and bool(
            (np.logical_or.reduce([members[z] for z in tiling]) == members[whole]).all()
        )
        for table in ("arrivals", "departures"):
            for hour in range(HOURS):
                parts: list[Cell] = [(table, z, "", hour) for z in tiling]
                if is_tiled:
                    found.append(([(table, whole, "", hour)], parts))
        departed: list[Cell] = [("departures", whole, "", hour) for hour in range(HOURS)]
        found.append((departed, [("trips", whole, other, -1) for other in (*NAMES, OUTSIDE)]))
        found.append((departed, [cell for cell in _all_cells() if cell[:2] == ("dwell", whole)]))
    return found


def bounds(seen: PublishedDay) -> tuple[dict[Cell, int], dict[Cell, int]]:
    """The values that each public number may stand for."""
    low = {c: 0 if n == SUPPRESSED else max(K, n - K + 1) for c, n in seen.numbers.items()}
    high = {c: K + SPREAD - 2 if n == SUPPRESSED else n + K - 1 for c, n in seen.numbers.items()}
    return low, high


def narrow(
    low: dict[Cell, int], high: dict[Cell, int], known: list[Relation]
) -> tuple[dict[Cell, int], dict[Cell, int]]:
    """Bounds after all deductions: a sum over the whole covers each part, and the parts together cover each of the whole."""
    for _ in range(ROUNDS):
        before = dict(low), dict(high)
        for whole, parts in known:
            most = sum(high[c] for c in whole)
            for part in parts:
                high[part] = min(high[part], most)
            total = sum(high[c] for c in parts)
            needed = max(low[c] for c in whole)
            for part in parts:
                low[part] = max(low[part], needed - (total - high[part]))
        if (low, high) == before:
            break
    return low, high


@dataclass(frozen=True)
class FlowReport:
    """Hidden numbers, those that were found, and the guesses."""

    hidden: int
    shown: int
    found: int  # one value left
    fewest_values: int  # of numbers that may be small
    unsound: int  # bounds that the truth contradicts
    differences: int  # cells whose number differs between overlapping spans
    guessed: float  # share of right best guesses
    prior: float  # share of right guesses by table alone
    control_hidden: int
    control_found: int
    control_right: int

    def text(self) -> str:
        """As lines."""
        control = f"{self.control_found} of {self.control_hidden} found, {self.control_right} of them right"
        lines = (
            f"hidden numbers           {self.hidden}; {self.shown} shown",
            f"bounds                   {self.found} found; {self.fewest_values} values left at least",
            f"spans                    {self.differences} answers differed",
            f"best guess               {self.guessed:.1%} right; prior {self.prior:.1%}",
            f"control: spans, margins  {control}",
        )
        return "\n".join(lines)


def attack(seed: int, days: int) -> FlowReport:
    """The whole attack."""
    rng, campus = np.random.default_rng(seed), Campus()
    key, known = rng.bytes(32), relations(campus)
    seen = [publish(people_of(walk(campus, rng, day), day), day, key) for day in range(days)]
    hidden = found = unsound = 0
    fewest = MAX_PEOPLE
    for day in seen:
        low, high = narrow(*bounds(day), known)
        for cell in day.hidden:
            left = high[cell] - low[cell] + 1
            hidden += 1
            if low[cell] < K:  # else it is known to be no small number
                found, fewest = found + (left == 1), min(fewest, left)
            unsound += not low[cell] <= day.truth[cell] <= high[cell]
    # every answer is made of the same days, so a span of n days less one of n - 1 days is a public day
    differences = sum(publish(day.truth, n, key).numbers != day.numbers for n, day in enumerate(seen))
    guessed, prior = _guesses(seen)
    return FlowReport(
        hidden, sum(len(day.numbers) for day in seen) - hidden, found, fewest, unsound, differences,
        guessed, prior, *_control(seen),
    )  # fmt: skip


def _guesses(seen: list[PublishedDay]) -> tuple[float, float]:
    """The shares of right guesses of hidden numbers on the last half, learnt on the first."""
    half = len(seen) // 2
    shares = []
    for feature in (_neighbours, _table):
        table: dict[Hashable, Counter[int]] = defaultdict(Counter)
        for day in seen[:half]:
            for cell in day.hidden:
                table[feature(day, cell)][day.truth[cell]] += 1
        right = total = 0
        for day in seen[half:]:
            for cell in day.hidden:
                values = table[feature(day, cell)]
                guess = values.most_common(1)[0][0] if values.total() >= SEEN_ENOUGH else 0
                right, total = right + (guess == day.truth[cell]), total + 1
        shares.append(right / max(1, total))
    return shares[0], shares[1]


def _table(_: PublishedDay, cell: Cell) -> Hashable:
    """The table alone."""
    return cell[0]


def _neighbours(day: PublishedDay, cell: Cell) -> Hashable:
    """The table, and how full the cells beside it are."""
    name, zone, other, hour = cell
    beside: list[Cell] = [(name, zone, other, hour - 1), (name, zone, other, hour + 1)]
    if name == "trips":
        beside = [("trips", other, zone, -1), ("trips", zone, OUTSIDE, -1), ("trips", OUTSIDE, other, -1)]
    return name, tuple(min(day.numbers.get(c, 0), 10) for c in beside)


def _control(seen: list[PublishedDay]) -> tuple[int, int, int]:
    """A threshold alone on exact numbers, with row sums, and sums over any span: subtract what is shown."""
    hidden = found = right = 0
    for day in seen:
        for zone in NAMES:
            cells = [c for c in day.truth if c[0] == "trips" and c[1] == zone]
            small = [c for c in cells if day.truth[c] < K]
            hidden += len(small)
            if len(small) == 1:  # the row sum less the others
                found += 1
                right += (
                    sum(day.truth[c] for c in cells) - sum(day.truth[c] for c in cells if c != small[0])
                    == day.truth[small[0]]
                )
    total: Counter[Cell] = Counter()
    for day in seen:
        before = Counter(total)
        total.update(day.truth)
        for cell in day.hidden:
            # the answer for n days less the one for n - 1 days
            if before[cell] >= K and total[cell] >= K:
                found += 1
                right += total[cell] - before[cell] == day.truth[cell]
        hidden += len(day.hidden)
    return hidden, found, right


def main() -> None:
    """Print the report of a seed."""
    options = argparse.ArgumentParser()
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--days", type=int, default=6)
    chosen = options.parse_args()
    print(f"{len(NAMES)} zones, {PEOPLE} people, {chosen.days} days, seed {chosen.seed}")
    print(attack(chosen.seed, chosen.days).text())


if __name__ == "__main__":
    main()

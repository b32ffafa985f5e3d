"""The timetable of a day: presence, classes, lunch and library of each person, and the parking of cars.

The shares and hours are our own, chosen for two peaks a day: late morning, and after lunch.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from headcount.counting.fix_columns import B1, F8, I8
from headcount.simulate.places import POINTS_PER_PLACE, Places

HOURS = 24
OFF_SITE = -1  # not on site
#: Kinds of day: share of the people; hours of arrival and departure, each with its weight.
DAY_KINDS = (
    (0.30, {8: 1, 9: 6, 10: 3}, {12: 4, 13: 6}),
    (0.45, {8: 2, 9: 5, 10: 2, 11: 1}, {16: 4, 17: 9, 18: 4, 19: 2, 21: 1}),
    (0.25, {13: 2, 14: 6, 15: 2}, {17: 6, 18: 8, 19: 4, 21: 2}),
)
#: Share of people whose day starts half an hour later, and of those who stay in one building.
HALF_HOUR_SHARE, STAFF_SHARE = 0.3, 0.2
#: Hours after the last hour on site within which a car has certainly left, half-hour days included.
LEAVING_HOURS = 2
#: Shares of an hour's place: own building, another one, library, lawn.
HOUR_SHARES = (0.45, 0.30, 0.18, 0.07)
#: Shares of the lunch place on full days: food, lawn, off site, own building.
LUNCH_SHARES = (0.55, 0.15, 0.15, 0.15)


@dataclass(frozen=True, slots=True)
class Timetable:
    """A day of P people and V cars. Times are seconds since midnight."""

    place: I8  # [P, 24] index of the place in each hour, OFF = not on site
    shift_s: F8  # [P] delay of all hours of this person
    come: I8  # [P] first hour on site
    go: I8  # [P] first hour off site again
    car_of: I8  # [P] the car that this person drives, -1 = none
    park: I8  # [V] the place where the car is parked, -1 = the car stays away
    car_come: I8  # [V] like `come`
    car_go: I8  # [V]
    car_shift_s: F8  # [V]


def draw_timetable(places: Places, people: int, vehicles: int, rng: np.random.Generator) -> Timetable:
    """Draw a day: cars follow their drivers' hours, and come only if a parking space is free."""
    come, go = _presence(people, rng)
    home = _home(places, people, rng)
    shift_s = np.where(rng.random(people) < HALF_HOUR_SHARE, 1800.0, 0.0)
    drivers = min(people, vehicles)
    driver = rng.permutation(people)[:drivers]
    car_come, car_go = _presence(vehicles, rng)
    car_shift_s = np.zeros(vehicles)
    target = _home(places, vehicles, rng)
    car_come[:drivers], car_go[:drivers] = come[driver], go[driver]
    car_shift_s[:drivers], target[:drivers] = shift_s[driver], home[driver]
    park = _find_parks(places, car_come, car_go, target, rng)
    car_of = np.full(people, -1)
    car_of[driver] = np.where(park[:drivers] >= 0, np.arange(drivers), -1)
    place = _hours(places, home, come, go, drives=car_of >= 0, rng=rng)
    return Timetable(place, shift_s, come, go, car_of, park, car_come, car_go, car_shift_s)


def _presence(number: int, rng: np.random.Generator) -> tuple[I8, I8]:
    """Hours of arrival and departure of each."""
    come, go = np.zeros(number, np.int64), np.zeros(number, np.int64)
    days = rng.choice(len(DAY_KINDS), number, p=[share for share, _, _ in DAY_KINDS])
    for index, (_, comes, goes) in enumerate(DAY_KINDS):
        mine = days == index
        come[mine], go[mine] = _draw(comes, int(mine.sum()), rng), _draw(goes, int(mine.sum()), rng)
    return come, go


def _draw(weights: dict[int, int], number: int, rng: np.random.Generator) -> I8:
    total = sum(weights.values())
    return rng.choice(list(weights), number, p=[weight / total for weight in weights.values()])


def _home(places: Places, number: int, rng: np.random.Generator) -> I8:
    """The building of each; larger ones have more people."""
    weights = np.sqrt(places.area_m2[places.works])
    return rng.choice(places.works, number, p=weights / weights.sum())


def _hours(places: Places, home: I8, come: I8, go: I8, drives: B1, rng: np.random.Generator) -> I8:
    people = len(home)
    choice = rng.choice(4, (people, HOURS), p=HOUR_SHARES)
    choice[rng.random(people) < STAFF_SHARE] = 0
    elsewhere = rng.choice(places.works, (people, HOURS))
    books = rng.choice(places.books, (people, HOURS))
    lawn = rng.choice(places.lawns, (people, HOURS)) if len(places.lawns) else elsewhere
    own = np.broadcast_to(home[:, None], (people, HOURS))
    place = np.choose(choice, [own, elsewhere, books, lawn])
    all_day = np.flatnonzero((come < 12) & (go > 14))
    lunch = rng.choice(4, len(all_day), p=LUNCH_SHARES)
    lunch[drives[all_day] & (lunch == 2)] = 0  # drivers eat on site
    hour = rng.integers(12, 14, len(all_day))
    food = rng.choice(places.food, len(all_day))
    meals = [food, lawn[all_day, hour], np.full(len(all_day), OFF_SITE), home[all_day]]
    place[all_day, hour] = np.choose(lunch, meals)
    hours = np.arange(HOURS)
    return np.where((hours >= come[:, None]) & (hours < go[:, None]), place, OFF_SITE)


def _find_parks(places: Places, come: I8, go: I8, target: I8, rng: np.random.Generator) -> I8:
    """Assign cars in the order of arrival to the nearest car park with a free space; -1 if all are full."""
    x, y = places.x_m.mean(axis=1), places.y_m.mean(axis=1)
    away_m = np.hypot(x[:, None] - x[places.parks], y[:, None] - y[places.parks])  # [L, parks]
    nearest = np.argsort(away_m, axis=1)
    leaving: list[list[int]] = [[] for _ in places.parks]  # hours at which spaces become free
    found = np.full(len(come), -1)
    for car in np.lexsort((rng.random(len(come)), come)):
        for park in nearest[target[car]]:
            taken = leaving[park]
            while taken and taken[0] + LEAVING_HOURS <= come[car]:
                heapq.heappop(taken)
            if len(taken) < places.park_capacity[park]:
                heapq.heappush(taken, int(go[car]))
                found[car] = places.parks[park]
                break
    return found


def draw_points(place: I8, rng: np.random.Generator) -> I8:
    """Draw a point of its place for each stay: an index."""
    return rng.integers(0, POINTS_PER_PLACE, place.shape)

"""How much noise differential privacy would add to live counts: why they have a threshold instead.

    python tests/attack/continual_noise.py

The binary-tree mechanism (Dwork, Naor, Pitassi and Rothblum, "Differential privacy under continual observation",
2010; Chan, Shi and Song, "Private and continual release of statistics", 2011) publishes a count at each of T
instants, as the sum of the changes so far. Each change is in one node of each of the L levels of a binary
tree over the instants, each node has Laplace noise of scale L / epsilon, and a count sums up to L nodes: the
standard deviation is up to sqrt(2 L) L / epsilon.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

DAYS = 400
#: Changes of a zone by one person in a day, where the person and not a single change is to be protected.
CHANGES_A_DAY = 8


def levels(instants: int) -> int:
    """The levels of a tree over the instants."""
    return math.floor(math.log2(instants)) + 1


def noise_std(instants: int, epsilon: float, changes: int = 1) -> float:
    """The largest standard deviation of a count; epsilon for `changes` changes together."""
    return math.sqrt(2 * levels(instants)) * levels(instants) * changes / epsilon


def tree_errors(depth: int, epsilon: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """The errors of all counts at 2 ** depth - 1 instants, by running the mechanism."""
    nodes = [rng.laplace(0, depth / epsilon, 2**depth) for _ in range(depth)]
    errors = np.zeros(2**depth - 1)
    for instant in range(1, 2**depth):
        end = instant
        for level in range(depth):  # the dyadic intervals that make up [0, instant)
            if instant >> level & 1:
                errors[instant - 1] += nodes[level][end >> level]
                end -= 1 << level
    return errors


def main() -> None:
    """Print the table of the decision record."""
    print(
        f"{DAYS} days, epsilon 1     instants  levels  one change  a person's day ({CHANGES_A_DAY} changes)"
    )
    for name, every_s in (("a count a second", 1), ("a count a minute", 60)):
        instants = DAYS * 86_400 // every_s
        one, person = noise_std(instants, 1.0), noise_std(instants, 1.0, CHANGES_A_DAY)
        print(f"{name:20} {instants:12} {levels(instants):7} {f'± {one:.0f}':>11} {f'± {person:.0f}':>27}")


if __name__ == "__main__":
    main()

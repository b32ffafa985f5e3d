"""What one worker carries, learned from what busy workers do: pure.

A worker's CPU goes into its clock, heartbeat and snapshots first, and into fixes second. Measured (one
worker, 16 partitions, 2 busy cores): 0.075 CPUs at 100 fixes/s, 0.106 at 1000, 0.107 at 5000, 0.141 at
15 000. The quotient of fixes and CPU seconds is 1300 in the first case and 108 000 in the last: what an
idle worker does says nothing of what a busy one can. So the quotient is learned only while workers use
at least `BUSY` of a CPU each, from sums of both that are forgotten with the same half-life. Until
then a guess counts, which weighs as much as `PRIOR_CPU_S` of measured CPU.

It needn't be exact. Where it is too high, the CPU that is really used is a signal of its own; where it
is too low, workers come a little early.
"""

from __future__ import annotations

from dataclasses import dataclass

GUESS_PER_CPU_S = 100_000.0
PRIOR_CPU_S = 5.0
BUSY = 0.25
HALF_LIFE_S = 120.0
#: Whatever was measured, a busy CPU second is good for so many fixes.
LEAST_PER_CPU_S, MOST_PER_CPU_S = 5_000.0, 1_000_000.0


@dataclass(frozen=True, slots=True)
class Capacity:
    """Fixes per CPU second of a busy worker, as known so far."""

    fixes: float = GUESS_PER_CPU_S * PRIOR_CPU_S
    cpu_s: float = PRIOR_CPU_S

    @property
    def per_cpu_s(self) -> float:
        """Fixes per CPU second, within what is believable."""
        return min(max(self.fixes / self.cpu_s, LEAST_PER_CPU_S), MOST_PER_CPU_S)

    def learn(self, per_s: float | None, cores: float | None, workers: int, over_s: float) -> Capacity:
        """The same after workers have counted `per_s` fixes a second with `cores` CPUs for `over_s`.

        What can't be so is ignored (nothing, less than nothing, no number), and so is idleness.
        """
        if per_s is None or cores is None or not 0 < per_s < 1e12 or not 0 < over_s < 1e6:
            return self
        if not max(BUSY * workers, BUSY) <= cores < 1e6:
            return self
        kept = 0.5 ** (over_s / HALF_LIFE_S)
        return Capacity(self.fixes * kept + per_s * over_s, self.cpu_s * kept + cores * over_s)

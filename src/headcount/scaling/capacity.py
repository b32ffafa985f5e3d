"""What one worker carries, learned from what the workers do: pure.

Fixes per CPU second are a property of the site, the batches and the machine, and differ by a factor of a
hundred: 500 000 where the batches are large, some thousands where a few devices send once a second. So the
measured one counts: fixes and CPU seconds of all workers, both forgotten with the same half-life, and
their quotient. It begins with a guess that weighs as much as `PRIOR_CPU_S` of measured CPU, so the first
seconds of a process, which are spent importing, don't say much.

A worker that has little to do uses CPU for its clock, its heartbeat and its snapshots, so the quotient
falls where there is little load. That errs to the safe side, and not without limit: with
this quotient `need` is the CPU used, divided by what each may use, which is the HPA's own rule.
"""

from __future__ import annotations

from dataclasses import dataclass

#: What is measured in `bench/` on a busy 2-core machine that also runs everything else.
GUESS_PER_CPU_S = 100_000.0
PRIOR_CPU_S = 5.0
HALF_LIFE_S = 120.0
#: Whatever was measured, a CPU second is good for so many fixes (below: too little load to tell).
LEAST_PER_CPU_S, MOST_PER_CPU_S = 5_000.0, 1_000_000.0


@dataclass(frozen=True, slots=True)
class Capacity:
    """Fixes per CPU second, as known so far."""

    fixes: float = GUESS_PER_CPU_S * PRIOR_CPU_S
    cpu_s: float = PRIOR_CPU_S

    @property
    def per_cpu_s(self) -> float:
        """Fixes per CPU second, within what is believable."""
        return min(max(self.fixes / self.cpu_s, LEAST_PER_CPU_S), MOST_PER_CPU_S)

    def learn(self, fixes: float | None, cpu_s: float | None, over_s: float) -> Capacity:
        """The same after so many more fixes for so many more CPU seconds, within `over_s`.

        What can't be so is ignored: nothing, less than nothing, no number.
        """
        if (
            fixes is None
            or cpu_s is None
            or not 0 < fixes < 1e12
            or not 0 < cpu_s < 1e6
            or not 0 < over_s < 1e6
        ):
            return self
        kept = 0.5 ** (over_s / HALF_LIFE_S)
        return Capacity(self.fixes * kept + fixes, self.cpu_s * kept + cpu_s)

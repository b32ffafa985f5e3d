"""Count partitions of the log on all sites of a deployment. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from headcount.counting.site_versions import Sites, SiteVersions
from headcount.devices.pseudonyms import Pseudonyms
from headcount.worker.partition import Partition
from headcount.worker.site_counter import CountingOutput, SiteCounter
from headcount.worker.site_partition import SitePartition


class Counter:
    """Counts partitions, each site by a counter of its own."""

    def __init__(self, sites: Sites, pseudonyms: Pseudonyms, partitions: int) -> None:
        """Start without devices.

        Args:
            sites: what is counted.
            pseudonyms: of the `days` of the partitions; on others they are random.
            partitions: P, of which it counts some.
        """
        self._sites = sites
        self._pseudonyms = pseudonyms
        self._partitions = partitions
        self._counters: dict[str, SiteCounter] = {}  # by key of the site

    def partition(self, number: int, epoch: int) -> Partition:
        """A partition of a number at the start of the log, for its owner's epoch; it replaces an earlier one."""
        for counter in self._counters.values():
            counter.drop(number)
        return Partition(number, epoch, self._sites, self._part)

    def _part(self, site: SiteVersions, number: int, epoch: int) -> SitePartition:
        if site.key not in self._counters:
            self._counters[site.key] = SiteCounter(site, self._pseudonyms, self._partitions)
        return self._counters[site.key].partition(number, epoch)

    def work(
        self,
        partitions: Sequence[Partition],
        *,
        until_tick: int | None = None,
        step: int = 1,
        publish: bool = True,
    ) -> CountingOutput:
        """Count partitions up to the last instant that is over in each.

        Args:
            partitions: that this counter created, each once.
            until_tick: no further than to this instant, in TICK_S.
            step: publish at multiples of this, in TICK_S.
            publish: include the counts in the output (those for the history are included in any case).
        """
        output = CountingOutput()
        for partition in partitions:
            partition.distribute()
        known = {site.key for site in self._sites.all}
        self._counters = {key: counter for key, counter in self._counters.items() if key in known}
        for key, counter in self._counters.items():
            parts = [partition.parts[key] for partition in partitions if key in partition.parts]
            counter.work(
                [part for part in parts if not part.has_ended],
                output,
                until_tick=until_tick,
                step=step,
                publish=publish,
            )
        return output

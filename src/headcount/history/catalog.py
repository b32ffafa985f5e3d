"""Read and commit the history's manifest, and write its segments."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Collection

import msgspec
import pyarrow as pa

from headcount.errors import ObjectNotFoundError, ReplacedError, StoreError
from headcount.history.hours import hour_name
from headcount.history.manifest import MANIFEST, Box, Manifest, NewerSchemaError, Segment, decoded, encoded
from headcount.history.objects import ObjectStore
from headcount.history.segments import parquet

#: Commits of others that may come first, one after the other, until a commit gives up.
ATTEMPTS = 100

Change = Callable[[Manifest], Manifest | None]


class Catalog:
    """The history in a store. All methods block, and raise the errors of `ObjectStore`."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    def manifest(self) -> Manifest:
        """Return the newest manifest; that of an empty history if there is none.

        Raises:
            StoreError: it is damaged, or of a newer release.
        """
        return self._read()[0]

    def commit(self, change: Change) -> Manifest:
        """Replace the manifest by what `change` makes of it; returns the new one.

        `change` is called again with a newer manifest when another writer was faster; it returns None if
        nothing is to be changed, and may raise to give up.

        A new segment must still exist, and not be about to be deleted as an object that no manifest names.
        This holds without clocks: such an object is first named in `removed`, by a commit too, then deleted,
        and only then taken out of `removed`. So either that commit is older than the manifest that is
        replaced here, and its effect is seen; or it comes later, and finds the segment named.

        Raises:
            ObjectNotFoundError: a new segment was deleted, because its commit came too late. Write it again.
            StoreError: others were faster ATTEMPTS times.
        """
        for _ in range(ATTEMPTS):
            before, version = self._read()
            after = change(before)
            if after is None:
                return before
            self._check_new(before, after)
            after = msgspec.structs.replace(after, number=before.number + 1)
            try:
                self.store.replace(MANIFEST, encoded(after), version)
            except ReplacedError:
                continue
            return after
        raise StoreError(self.store.url, "other writers change it all the time", "Run fewer writers")

    def discard(self, names: Collection[str]) -> None:
        """Delete segments whose commit was given up.

        Those that the manifest names stay: an earlier attempt may have been applied, whose answer was lost.
        """
        self.store.delete(sorted(set(names) - self.manifest().names()))

    def write(
        self,
        dataset: str,
        table: pa.Table,
        span_s: tuple[float, float],
        *,
        t_span_s: tuple[float, float] = (0.0, 0.0),
        box: Box | None = None,
    ) -> Segment:
        """Write rows of one hour as a segment that is not yet in the manifest.

        Args:
            dataset: such as `fixes`; its columns include `site`.
            table: at least one row, in the order in which it is to be stored.
            span_s: the smallest and largest time of the rows, Unix seconds, within one hour.
            t_span_s: of fixes, the same of their event times.
            box: of fixes, their positions.
        """
        data = parquet(table)
        name = f"{dataset}/{hour_name(span_s[0])}/{uuid.uuid4().hex}.parquet"
        self.store.put(name, data)
        sites = tuple(sorted(table["site"].unique().cast(pa.string()).to_pylist()))
        digest = hashlib.sha256(data).hexdigest()
        kinds = ()
        if "kind" in table.column_names:
            kinds = tuple(sorted(table["kind"].unique().cast(pa.string()).to_pylist()))
        return Segment(name, len(table), len(data), digest, *span_s, sites, *t_span_s, box, kinds=kinds)

    def _read(self) -> tuple[Manifest, str | None]:
        found = self.store.versioned(MANIFEST)
        if found is None:
            return Manifest(), None
        try:
            manifest = decoded(found[0])
        except NewerSchemaError as error:
            problem = f"{MANIFEST} is of a newer release of headcount ({error})"
            raise StoreError(self.store.url, problem, "Run that release or a newer one") from error
        except msgspec.MsgspecError as error:
            raise StoreError(
                self.store.url, f"{MANIFEST} is damaged: {error}", "Restore it from a backup"
            ) from error
        return manifest, found[1]

    def _check_new(self, before: Manifest, after: Manifest) -> None:
        new = after.names() - before.names()
        gone = new & {each.name for each in before.removed}
        for name in sorted(new - gone):
            try:
                self.store.open(name).close()
            except ObjectNotFoundError:
                gone.add(name)
        if gone:
            problem = f"{min(gone)} was deleted before it was committed"
            raise ObjectNotFoundError(self.store.url, problem, "Write its rows again")

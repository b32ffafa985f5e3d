"""The catalog of the history: segments and the manifest's compare-and-set."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from headcount.errors import ObjectExistsError, ReplacedError, StoreError
from headcount.history.catalog import MANIFEST, Catalog
from headcount.history.manifest import SCHEMA, Manifest
from headcount.history.objects import FolderStore


def test_each_of_many_simultaneous_commits_is_applied_once(tmp_path: Path) -> None:
    """Four writers with 25 commits each leave 100 segments, and a manifest of number 100."""
    catalog = Catalog(FolderStore(tmp_path))

    def commit() -> None:
        own = Catalog(FolderStore(tmp_path))
        for _ in range(25):
            segment = own.write("fixes", pa.table({"site": ["ul"], "x": [1]}), (3600.0, 3601.0))
            own.commit(lambda before, segment=segment: before.with_segments(segment))  # type: ignore[misc]

    threads = [threading.Thread(target=commit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = catalog.manifest()
    assert found.number == 100
    assert len({segment.name for segment in found.segments}) == 100


def test_a_stale_version_replaces_nothing(tmp_path: Path) -> None:
    """A replacement with the version before last is refused."""
    store = FolderStore(tmp_path)
    store.replace("m", b"1", None)
    first = store.versioned("m")
    assert first is not None
    store.replace("m", b"2", first[1])
    with pytest.raises(ReplacedError):
        store.replace("m", b"3", first[1])
    with pytest.raises(ReplacedError):
        store.replace("m", b"3", None)
    assert store.get("m") == b"2"


def test_an_object_is_never_overwritten(tmp_path: Path) -> None:
    """Putting a name twice fails, and the first content stays."""
    store = FolderStore(tmp_path)
    store.put("a/b", b"1")
    with pytest.raises(ObjectExistsError):
        store.put("a/b", b"2")
    assert store.get("a/b") == b"1"
    assert [each.name for each in store.list_()] == ["a/b"]


@pytest.mark.parametrize(
    "content", [b"", b"{", msgspec.json.encode(Manifest(schema=SCHEMA + 1)), b'{"segments": 1}']
)
def test_a_damaged_or_newer_manifest_is_named(tmp_path: Path, content: bytes) -> None:
    """The error names the place and a remedy."""
    store = FolderStore(tmp_path)
    store.replace(MANIFEST, content, None)
    with pytest.raises(StoreError, match=r"manifest\.json is"):
        Catalog(store).manifest()

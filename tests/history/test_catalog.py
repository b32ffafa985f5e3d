"""The catalog of the history: segments and the manifest's compare-and-set."""

from __future__ import annotations

import re
import threading
from typing import Any

import msgspec
import obstore
import pyarrow as pa
import pytest

from headcount.errors import ObjectExistsError, ObjectNotFoundError, ReplacedError, StoreError
from headcount.history import s3_store
from headcount.history.catalog import Catalog
from headcount.history.manifest import MANIFEST, SCHEMA, Manifest
from headcount.history.objects import ObjectStore
from s3_fixture import BUCKET, S3Server


def test_each_of_many_simultaneous_commits_is_applied_once(store: ObjectStore) -> None:
    """Four writers with 25 commits each leave 100 segments, and a manifest of number 100."""
    catalog = Catalog(store)

    def commit() -> None:
        own = Catalog(store)
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


def test_a_stale_version_replaces_nothing(store: ObjectStore) -> None:
    """A replacement with the version before last is refused."""
    store.replace("m", b"1", None)
    first = store.versioned("m")
    assert first is not None
    store.replace("m", b"2", first[1])
    with pytest.raises(ReplacedError):
        store.replace("m", b"3", first[1])
    with pytest.raises(ReplacedError):
        store.replace("m", b"3", None)
    assert store.get("m") == b"2"


def test_an_object_is_never_overwritten(store: ObjectStore) -> None:
    """Putting a name twice fails, and the first content stays."""
    store.put("a/b", b"1")
    with pytest.raises(ObjectExistsError):
        store.put("a/b", b"2")
    assert store.get("a/b") == b"1"
    assert [each.name for each in store.list_()] == ["a/b"]


@pytest.mark.parametrize(
    "content", [b"", b"{", msgspec.json.encode(Manifest(schema=SCHEMA + 1)), b'{"segments": 1}']
)
def test_a_damaged_or_newer_manifest_is_named(store: ObjectStore, content: bytes) -> None:
    """The error names the place and a remedy."""
    store.replace(MANIFEST, content, None)
    with pytest.raises(StoreError, match=r"manifest\.json is"):
        Catalog(store).manifest()


def test_parts_of_an_object_are_read(store: ObjectStore) -> None:
    """An open object can be read in any order, and to its end."""
    store.put("a", bytes(range(100)))
    with store.open("a") as file:
        assert file.seek(-10, 2) == 90
        assert file.read() == bytes(range(90, 100))
        file.seek(20)
        assert file.read(5) == bytes(range(20, 25))
        assert file.tell() == 25


def test_objects_are_listed_by_the_start_of_their_names(store: ObjectStore) -> None:
    """A prefix may end within a part of a name; deleted objects are not listed, and deleting is repeatable."""
    for name in ("fixes/hour=1/a", "fixes/hour=2/b", "fixes/hour=12/c", "counts/d"):
        store.put(name, b"123")
    listed = {each.name: each.size for each in store.list_("fixes/hour=1")}
    assert listed == {"fixes/hour=1/a": 3, "fixes/hour=12/c": 3}
    store.delete(["fixes/hour=1/a", "never stored"])
    assert {each.name for each in store.list_()} == {"fixes/hour=2/b", "fixes/hour=12/c", "counts/d"}


def test_a_missing_object_is_named(store: ObjectStore) -> None:
    """The error names the place and the object."""
    with pytest.raises(ObjectNotFoundError, match=f"{re.escape(store.url)}.*a/b is missing"):
        store.get("a/b")
    with pytest.raises(ObjectNotFoundError, match="a/b is missing"):
        store.open("a/b")


@pytest.mark.parametrize(
    ("bucket", "variable", "value", "problem"),
    [
        ("none", "AWS_REGION", "us-east-1", "NoSuchBucket.*Create the bucket"),
        (BUCKET, "AWS_SECRET_ACCESS_KEY", "a wrong secret", "SignatureDoesNotMatch.*AWS_SECRET_ACCESS_KEY"),
        (BUCKET, "AWS_ACCESS_KEY_ID", "AKIAWRONG", "InvalidAccessKeyId.*AWS_ACCESS_KEY_ID"),
        (BUCKET, "AWS_ENDPOINT_URL", "http://127.0.0.1:9", "AWS_ENDPOINT_URL"),
    ],
)
def test_a_bucket_that_cannot_be_used_is_explained(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, bucket: str, variable: str, value: str, problem: str
) -> None:
    """The error names the bucket, the problem and a remedy, and holds no credentials."""
    monkeypatch.setattr(s3_store, "MAX_RETRIES", 0)
    monkeypatch.setenv(variable, value)
    store = s3_store.BucketStore(bucket, "here", s3.environment | {variable: value})
    with pytest.raises(StoreError, match=f"history in s3://{bucket}/here: .*{problem}") as caught:
        list(store.list_("fixes/"))
    text = str(caught.value)
    assert not [
        secret for secret in (*s3.environment.values(), "AKIAWRONG") if secret in text and secret != value
    ]
    assert "wrong" not in text.lower()


def test_a_put_whose_answer_was_lost_is_repeated(s3: S3Server) -> None:
    """An object that exists with the same content is taken as written by this process."""
    store = s3.store("repeated")
    store.put("a", b"1")
    store.put("a", b"1")
    with pytest.raises(ObjectExistsError):
        store.put("a", b"2")


def test_a_store_is_checked_and_left_empty(store: ObjectStore) -> None:
    """A sound store passes, and holds nothing of the check."""
    store.check()
    assert list(store.list_()) == []


def test_a_server_without_conditional_writes_is_refused(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a condition is ignored, the check fails: two writers would lose rows there."""
    store = s3.store("unconditional")
    put = obstore.put

    def unconditional(*arguments: Any, **options: Any) -> object:
        return put(*arguments, **options | {"mode": "overwrite"})

    monkeypatch.setattr(obstore, "put", unconditional)
    with pytest.raises(StoreError, match="does not support conditional writes"):
        store.check()

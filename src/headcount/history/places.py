"""The store of a deployment's history: a folder or a bucket."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from headcount.history.hours import folder
from headcount.history.objects import FolderStore, ObjectStore
from headcount.settings.formats import S3_SCHEME


def store_at(place: str, data: Path, environment: Mapping[str, str]) -> ObjectStore:
    """The store of the history.

    Args:
        place: the setting `history`: a folder or `s3://bucket/prefix`; "" for the folder in the data folder.
        data: the data folder.
        environment: the variables of this process, for the credentials of a bucket.
    """
    if place.startswith(S3_SCHEME):
        from headcount.history.s3_store import BucketStore  # noqa: PLC0415  # 20 MB that only S3 needs

        bucket, _, prefix = place.removeprefix(S3_SCHEME).partition("/")
        return BucketStore(bucket, prefix.strip("/"), environment)
    return FolderStore(Path(place) if place else folder(data))

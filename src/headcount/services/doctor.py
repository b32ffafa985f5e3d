"""The checks of `headcount doctor`: what is wrong with a data folder, and what would repair it."""

from __future__ import annotations

import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from headcount.access.audit_log import NEARLY_FULL
from headcount.errors import StoreError
from headcount.history.catalog import Catalog
from headcount.history.damage import foreign_objects, problem_of, restore, set_aside
from headcount.messages.records import ALIAS_KEY, DEVICE_KEY, Alias, Device
from headcount.messages.topics import FIX_STREAM
from headcount.messaging.jetstream import stream_names
from headcount.messaging.kv import KvBucket
from headcount.messaging.stream_files import CONTENT, damaged_streams
from headcount.messaging.streams import DEVICE_BUCKET, StreamSizes, stream_configs
from headcount.runtime.private_files import PRIVATE_UMASK, make_private
from headcount.services.container import Services

#: Free bytes below which the server does not start.
MIN_FREE_BYTES = 64 << 20
MIN_SECRET = 16


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem, its remedy, and a function that repairs it where the program can."""

    area: str
    problem: str
    remedy: str
    repair: Callable[[], object] | None = None


def partitions_of(streams: Iterable[str]) -> int:
    """The number of partitions of a log with streams of these names."""
    prefix = FIX_STREAM.format(partition="")
    numbers = [int(name.removeprefix(prefix)) for name in streams if name.startswith(prefix)]
    return max(numbers, default=0) + 1


def check_folder(
    data: Path, secret_file: Path | None, catalog: Catalog, *, in_use: bool
) -> Iterator[Finding]:
    """Check the files of a data folder, and its history; those of the streams only while no server uses it.

    Raises:
        OSError: the folder cannot be read.
        DataFolderError: the history's folder cannot be read.
    """
    yield from _permissions(data)
    yield from _secret(data, secret_file)
    free = shutil.disk_usage(data).free
    if free < MIN_FREE_BYTES:
        yield Finding("disk", f"{free / 1e6:.0f} MB are free", "make room on this disk")
    yield from _history(catalog)
    if not in_use:
        for stream, problem in damaged_streams(data, whole=True):
            content = CONTENT.get(stream.name, "the log")
            remedy = f"restore `jetstream` from a backup, or move {stream} away and lose its content"
            yield Finding("streams", f"{content} ({stream.name}): {problem}", remedy)


def _permissions(data: Path) -> Iterator[Finding]:
    files = (path for path in (data, *data.rglob("*")) if not path.is_symlink())
    found = [path for path in files if stat.S_IMODE(path.lstat().st_mode) & PRIVATE_UMASK]
    if found:
        problem = f"{len(found)} files and folders are accessible to other users, such as {found[0]}"
        remedy = "withdraw the permissions of all users but the owner"
        yield Finding("permissions", problem, remedy, lambda: make_private(found))


def _secret(data: Path, secret_file: Path | None) -> Iterator[Finding]:
    path = secret_file or data / "secret"
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        problem = f"{path} cannot be read ({error})"
        yield Finding("secret", problem, "restore it from a backup: passwords and the audit log need it")
        return
    if len(text) < MIN_SECRET:
        yield Finding("secret", f"{path} has fewer than {MIN_SECRET} characters", "restore it from a backup")


def _history(catalog: Catalog) -> Iterator[Finding]:
    """Verify every segment, those under legal holds among them, and list foreign files."""
    try:
        manifest = catalog.manifest()
        for segment in (*manifest.segments, *(each.segment for each in manifest.held)):
            problem = problem_of(catalog.store, segment)
            if problem is not None:
                repair = partial(set_aside, catalog, segment.name, problem, time.time())
                yield Finding("history", problem, "set it aside: its rows are missing in answers", repair)
        for damaged in manifest.damaged:
            if problem_of(catalog.store, damaged.segment) is None:
                name = damaged.segment.name
                problem = f"{name} was damaged, and is sound again"
                yield Finding(
                    "history", problem, "take it back into answers", partial(restore, catalog, name)
                )
        for name in foreign_objects(catalog.store.list_()):
            remedy = "remove it; it is ignored"
            yield Finding("history", f"{catalog.store.url}/{name} is not a file of the history", remedy)
    except StoreError as error:
        yield Finding("history", f"{error.url}: {error.problem}", error.remedy)


async def check_core(services: Services, on_progress: Callable[[str, float], None]) -> list[Finding]:
    """Check streams, registry and audit log over a connection to the core.

    Raises:
        LogError: the core does not answer.
    """
    client = services.client
    names = set(await stream_names(client))
    expected = {config["name"] for config in stream_configs(partitions_of(names), StreamSizes.within(0))}
    missing = sorted(expected - names)
    found = [
        Finding("streams", f"{name} is missing", "it is created, empty, at the next start")
        for name in missing
    ]
    if f"KV_{DEVICE_BUCKET}" not in missing:
        found += await _registry(KvBucket(client, DEVICE_BUCKET))
    report = await services.audit_log.verify(
        on_progress=lambda done, total: on_progress("verifying the audit log", done / max(total, 1))
    )
    remedy = "compare it with a backup: entries were lost or changed, or the secret is another one"
    found += [Finding("audit log", str(problem), remedy) for problem in report.problems]
    if report.used > NEARLY_FULL:
        found.append(Finding("audit log", f"{report.used:.0%} of its size is used", "make room on the disk"))
    return found


async def _registry(bucket: KvBucket) -> list[Finding]:
    devices: dict[str, Device] = {}
    found: list[Finding] = []
    for key, entry in (await bucket.newest(DEVICE_KEY.format(id="*"))).items():
        try:
            device = msgspec.json.decode(entry.value, type=Device)
            devices[device.id] = device
        except msgspec.MsgspecError as error:
            found.append(Finding("registry", f"{key} is unreadable ({error})", "register the device again"))
    leading: dict[str, int] = {}
    for key, entry in (await bucket.newest(ALIAS_KEY.format(digest="*"))).items():
        try:
            id_ = msgspec.json.decode(entry.value, type=Alias).device
        except msgspec.MsgspecError as error:
            found.append(
                Finding("registry", f"{key} is unreadable ({error})", "set the device's aliases again")
            )
            continue
        leading[id_] = leading.get(id_, 0) + 1
    for id_, device in devices.items():
        if leading.get(id_, 0) < len(device.aliases):
            remedy = f"headcount device change {id_} with all its aliases"
            found.append(Finding("registry", f"an alias of {id_} leads nowhere", remedy))
    return found

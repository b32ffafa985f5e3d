"""The streams and buckets: created once, brought up to date at every start.

    FIX_<p>    fix.<p>.>         the fixes of the last hour, on disk
    COUNT      count.<p>.<site>  the newest counts of each partition, in memory: lost when the server dies
    EVENT      event.*.*         the events of the last hour, each once; republished for MQTT
    HISTORY    history.<p>       rows on their way into segments, overwritten once they are there
    FOREIGN    owntracks.*.*, …  other formats, overwritten once they are translated
    AUDIT      audit.>           the audit log; no request can remove anything from it
    KV_SNAPSHOT  $KV.SNAPSHOT.>  the newest saved state of each partition; older ones are overwritten
    KV_LEASE     $KV.LEASE.>     heartbeats of workers and leases of partitions
    KV_UNIT      $KV.UNIT.>      heartbeats of broker units, and the state of the scaler
    KV_DEVICE    $KV.DEVICE.>    the registry of devices; replaced values stay until they are overwritten
                                 on disk (`KvBucket.rewrite`, `erase`)
    KV_COMMAND   $KV.COMMAND.>   commands to devices, the same
    KV_DAYKEY    $KV.DAYKEY.>    the keys of the daily pseudonyms, the same
    KV_ACCESS    $KV.ACCESS.>    API tokens and sessions
    KV_BAN       $KV.BAN.>       bans, in memory: ids of devices are its keys
    KV_SITE      $KV.SITE.>      the digest of the deployment's site, in memory: a new start may have another
    KV_SEEN      $KV.SEEN.>      when devices were last connected, in memory
    KV_REFUSED   $KV.REFUSED.>   what the broker refused of devices in the last hour, in memory

The server's MQTT side uses five more, `MQTT_STREAMS`. They hold client ids and topics of devices, so they
are in memory, and the account does not permit the server to create its own (see `nats_config`).

FIX_<p> and FOREIGN also hold `$MQTT.msgs.` and each of their subjects: acknowledged copies, see `qos1`.

A full stream drops its oldest messages; AUDIT and the buckets refuse new ones instead. A message above a stream's maximum size is not stored: a publisher
that waits for an answer gets an error, and an MQTT client that waits for a PUBACK is disconnected.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from headcount.errors import (
    LogError,
    LogTimeoutError,
    LogUnavailableError,
    StreamExistsError,
    StreamNotFoundError,
)
from headcount.messages.topics import (
    AUDIT_STREAM,
    COUNT_STREAM,
    COUNT_SUBJECTS,
    EVENT_STREAM,
    FIX_STREAM,
    FOREIGN_STREAM,
    FOREIGN_SUBJECTS,
    HISTORY_STREAM,
    OWNTRACKS_SUBJECTS,
)
from headcount.messaging import jetstream
from headcount.messaging.connection import Connection, Endpoint, connected
from headcount.messaging.jetstream import NS
from headcount.messaging.qos1 import STORED, with_stored
from headcount.runtime.retry import retry
from headcount.runtime.tasks import unless_stopped

MIB = 1 << 20
HOUR_S = 3600
#: The log's length (DESIGN: an hour; a day is in Parquet).
LOG_AGE_S = HOUR_S
#: A fix that is stored again with the same message id within this time is dropped. The server holds the ids in memory.
DUPLICATE_WINDOW_S = 120
HISTORY_AGE_S = 24 * HOUR_S
#: Size of all streams together on a disk that is large enough: at about 125 bytes per fix, the FIX streams
#: hold 75 million, an hour at 20 000 per second.
STORE_BYTES = 16 << 30
#: The largest fix or foreign message that is stored. OwnTracks' largest (waypoints) stay well below.
MAX_DEVICE_MESSAGE_BYTES = 64 << 10
SNAPSHOT_BUCKET = "SNAPSHOT"
LEASE_BUCKET = "LEASE"
UNIT_BUCKET = "UNIT"
DEVICE_BUCKET = "DEVICE"
COMMAND_BUCKET = "COMMAND"
DAYKEY_BUCKET = "DAYKEY"
ACCESS_BUCKET = "ACCESS"
BAN_BUCKET = "BAN"
SEEN_BUCKET = "SEEN"
REFUSED_BUCKET = "REFUSED"
SITE_BUCKET = "SITE"
#: Age at which entries of the audit log expire.
AUDIT_AGE_S = 90 * 24 * HOUR_S
#: Values of a key that may wait to be overwritten on disk.
KEPT_VALUES = 8
_ERASABLE = {"max_msgs_per_subject": KEPT_VALUES, "deny_delete": False}
#: Metadata of a FIX stream: the number of partitions with which it was created.
PARTITIONS_KEY = "headcount-partitions"
_ANSWER_S = 10.0
#: A stream without a leader doesn't answer at all: it is asked again after this.
_SOON_S = 1.0
#: Between checks whether the core has its streams.
_LOG_POLL_S = 0.1
#: Pauses before a stream is checked again that another node changes at the same time: 0.05 s to 6.4 s.
OVERTAKEN_FIRST_S, OVERTAKEN_MAX_S = 0.05, 6.4


@dataclass(frozen=True, slots=True)
class StreamSizes:
    """The maximum size of each stream; `fix` is that of all FIX streams together."""

    fix: int
    event: int
    history: int
    foreign: int
    snapshots: int
    devices: int
    commands: int
    audit: int
    count: int = 64 * MIB

    @classmethod
    def within(cls, store_bytes: int) -> StreamSizes:
        """The sizes as shares of `store_bytes`."""
        return cls(
            fix=int(0.50 * store_bytes),
            event=int(0.08 * store_bytes),
            history=int(0.20 * store_bytes),
            foreign=int(0.04 * store_bytes),
            snapshots=int(0.08 * store_bytes),
            devices=int(0.03 * store_bytes),
            commands=int(0.01 * store_bytes),
            audit=int(0.02 * store_bytes),
        )


async def ensure_streams(
    connection: Connection,
    partitions: int,
    *,
    store_bytes: int = STORE_BYTES,
    replicas: int = 1,
    plugin_subjects: Sequence[str] = (),
) -> None:
    """Create all streams and buckets, or bring those that exist up to date; repeating it is harmless.

    All nodes of a core may do so at the same time: a node that another one overtakes checks again.

    Args:
        connection: as the user with all rights.
        partitions: P, the same that the broker's mapping has.
        store_bytes: size of all streams together.
        replicas: number of nodes that store each stream.
        plugin_subjects: subjects of installed formats.

    Raises:
        LogUnavailableError: the core has no leader yet, too few of its nodes are up.
        LogError: the folder holds a log with another number of partitions, or the server refuses.
    """
    names = set(await jetstream.stream_names(connection, timeout_s=_ANSWER_S))
    await _unless_overtaken(partial(_check_partitions, connection, names, partitions))
    stages = (
        # first: in an earlier release they had subjects of ours
        [config for config in MQTT_STREAMS if config["name"] in names],
        stream_configs(partitions, StreamSizes.within(store_bytes), plugin_subjects),
        # last, as MQTT clients are let in when they are there
        MQTT_STREAMS,
    )
    for configs in stages:
        ensured = await asyncio.gather(
            *(
                _unless_overtaken(partial(_ensure, connection, config | {"num_replicas": replicas}))
                for config in configs
            ),
            return_exceptions=True,
        )
        if problems := [found for found in ensured if found is not None]:
            raise problems[0]


@contextlib.asynccontextmanager
async def opened_log(core: Endpoint, name: str, stop: asyncio.Event) -> AsyncIterator[Connection]:
    """A connection to the core, once it has all streams.

    Raises:
        StopRequestedError: `stop` was set while it waited.
    """
    async with connected(core, name, stop) as connection:
        check = partial(_check_all_exist, connection)
        waiting = retry(check, (LogError,), "waiting for the core", pause_s=_LOG_POLL_S, level=logging.INFO)
        await unless_stopped(waiting, stop)
        yield connection


async def _check_all_exist(connection: Connection) -> None:
    for config in MQTT_STREAMS:  # created last
        await jetstream.stream_info(connection, config["name"], timeout_s=_SOON_S)


def stream_configs(
    partitions: int, sizes: StreamSizes, plugin_subjects: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The configuration of each stream, as JetStream's API takes it (ages in nanoseconds)."""
    per_fix_stream = max(sizes.fix // partitions, MIB)
    fixes = [
        _stream(
            FIX_STREAM.format(partition=partition),
            with_stored([f"fix.{partition}.>"]),
            max_age=LOG_AGE_S * NS,
            duplicate_window=DUPLICATE_WINDOW_S * NS,
            max_bytes=per_fix_stream,
            max_msg_size=MAX_DEVICE_MESSAGE_BYTES,
            metadata={PARTITIONS_KEY: str(partitions)},
        )
        for partition in range(partitions)
    ]
    return [
        *fixes,
        _stream(
            COUNT_STREAM,
            [COUNT_SUBJECTS],
            storage="memory",
            max_msgs_per_subject=1,
            max_bytes=sizes.count,
            allow_direct=True,
        ),
        _stream(
            EVENT_STREAM,
            ["event.*.*"],
            max_age=LOG_AGE_S * NS,
            duplicate_window=LOG_AGE_S * NS,
            max_bytes=sizes.event,
            allow_direct=True,
            republish={"src": "event.*.*", "dest": "headcount.{{wildcard(1)}}.events.{{wildcard(2)}}"},
        ),
        _stream(
            HISTORY_STREAM,
            ["history.*"],
            max_age=HISTORY_AGE_S * NS,
            max_bytes=sizes.history,
            allow_direct=True,
        ),
        _stream(
            FOREIGN_STREAM,
            with_stored([*FOREIGN_SUBJECTS, *plugin_subjects]),
            max_age=LOG_AGE_S * NS,
            max_bytes=sizes.foreign,
            max_msg_size=MAX_DEVICE_MESSAGE_BYTES,
        ),
        _bucket(SNAPSHOT_BUCKET, sizes.snapshots, **_ERASABLE),
        _bucket(LEASE_BUCKET, MIB),
        _bucket(UNIT_BUCKET, MIB),
        _bucket(DEVICE_BUCKET, sizes.devices, **_ERASABLE),
        _bucket(COMMAND_BUCKET, sizes.commands, **_ERASABLE),
        _bucket(DAYKEY_BUCKET, MIB, **_ERASABLE),
        _bucket(ACCESS_BUCKET, 4 * MIB),
        _bucket(BAN_BUCKET, 2 * MIB, storage="memory"),
        _bucket(SEEN_BUCKET, 64 * MIB, storage="memory"),
        _bucket(REFUSED_BUCKET, 8 * MIB, storage="memory", max_age=LOG_AGE_S * NS, discard="old"),
        _bucket(SITE_BUCKET, 32 * MIB, deny_delete=False),
        _stream(
            AUDIT_STREAM,
            ["audit.>"],
            discard="new",  # a flood of entries must not push out earlier ones
            max_age=AUDIT_AGE_S * NS,
            max_bytes=sizes.audit,
            deny_delete=True,
            deny_purge=True,
            allow_direct=True,
        ),
    ]


def _stream(name: str, subjects: list[str], **fields: Any) -> dict[str, Any]:
    common = {"retention": "limits", "storage": "file", "discard": "old", "num_replicas": 1}
    return {"name": name, "subjects": subjects, **common, **fields}


def _in_memory(name: str, subjects: str | list[str], max_bytes: int, **fields: Any) -> dict[str, Any]:
    subjects = [subjects] if isinstance(subjects, str) else subjects
    return _stream(name, subjects, storage="memory", max_bytes=max_bytes, **fields)


#: The streams of the server's MQTT side, as it would create them, but with limits and in memory: a server that
#: restarts has no sessions and no retained messages. Until they exist, it rejects MQTT clients.
#: `$MQTT_msgs` holds messages before their PUBACK, for subscribers with QoS 1, except those that FIX_<p> and
#: FOREIGN hold. Retained messages and sessions don't expire: a count that doesn't change stays retained.
#: Source: nats-server 2.15.1, `mqtt.go`: `mqttCreateAccountSessionManager`.
MQTT_SESSIONS, MQTT_RETAINED, MQTT_QOS2 = "$MQTT_sess", "$MQTT_rmsgs", "$MQTT_qos2in"
_MESSAGES = [f"{STORED}{subject}" for subject in ("headcount.>", "owntracks.*.*.cmd", *OWNTRACKS_SUBJECTS)]
#: Each subscription with QoS 1 is a consumer of `$MQTT_msgs`: four for each of a server's 65,536 connections.
#: Without it, the server allows 1,000.
MAX_MQTT_CONSUMERS = 4 * 65_536
#: The largest message with QoS 2 of a device; those that wait for their PUBREL are in memory.
MAX_QOS2_BYTES = 8 << 10
_INTEREST = {"retention": "interest", "max_age": LOG_AGE_S * NS, "max_consumers": MAX_MQTT_CONSUMERS}
_WAITING = {
    "max_age": LOG_AGE_S * NS,
    "max_msgs_per_subject": 1,
    "max_msg_size": MAX_QOS2_BYTES,
    "discard": "new",
    "discard_new_per_subject": True,
}
MQTT_STREAMS: tuple[dict[str, Any], ...] = (
    _in_memory("$MQTT_msgs", _MESSAGES, 128 * MIB, **_INTEREST),
    _in_memory("$MQTT_out", "$MQTT.out.>", 32 * MIB, **_INTEREST),
    _in_memory(MQTT_QOS2, "$MQTT.qos2.in.>", 64 * MIB, **_WAITING),
    # what is retained, the sites and counts, is never dropped for what devices want retained
    _in_memory(MQTT_RETAINED, "$MQTT.rmsgs.>", 64 * MIB, max_msgs_per_subject=1, discard="new"),
    _in_memory(MQTT_SESSIONS, "$MQTT.sess.>", 128 * MIB, max_msgs_per_subject=1, allow_direct=True),
)


async def _unless_overtaken(work: Callable[[], Awaitable[None]]) -> None:
    """Call `work`, and repeat it after a pause while another node creates or deletes the same stream.

    A stream that is being created exists already for the leader of the cluster, but has no leader of its own
    that could answer.

    Raises:
        LogUnavailableError: the stream is still neither there nor absent after about twenty seconds.
    """
    pause_s = OVERTAKEN_FIRST_S
    while True:
        try:
            return await work()
        except (StreamExistsError, StreamNotFoundError, LogTimeoutError) as error:
            if pause_s > OVERTAKEN_MAX_S:
                raise LogUnavailableError(f"{error}. Other nodes keep changing it") from error
        await asyncio.sleep(random.uniform(0.5, 1.0) * pause_s)  # noqa: S311 - so that nodes fall out of step
        pause_s *= 2


async def _ensure(connection: Connection, config: dict[str, Any]) -> None:
    name = config["name"]
    try:
        answer = await _ask(connection, f"STREAM.INFO.{name}", within_s=_SOON_S)
    except StreamNotFoundError:
        await _ask(connection, f"STREAM.CREATE.{name}", config)
        return
    present = answer["config"]
    if present["storage"] != config["storage"] or (present["deny_delete"] and not config.get("deny_delete")):
        # Of an earlier release, and not changeable. It held data that may not be on the disk, and its
        # content is created again.
        await _ask(connection, f"STREAM.DELETE.{name}")
        await _ask(connection, f"STREAM.CREATE.{name}", config)
        return
    if partitions := config.get("metadata", {}).get(PARTITIONS_KEY):
        _check_made_with(present, partitions)  # another node may have made it since the first check
    wanted = present | config
    wanted["metadata"] = present.get("metadata", {}) | config.get("metadata", {})
    # nodes with different disks would change it back and forth
    if present["num_replicas"] > 1 and present["max_bytes"] > 0:
        wanted["max_bytes"] = present["max_bytes"]
    # a smaller disk must not delete stored messages
    wanted["max_bytes"] = max(wanted["max_bytes"], answer["state"]["bytes"])
    if wanted != present:
        await _ask(connection, f"STREAM.UPDATE.{name}", wanted)


async def _check_partitions(connection: Connection, names: set[str], partitions: int) -> None:
    """Check that the log was created with the same P, on which the partition of a device depends."""
    prefix = FIX_STREAM.format(partition="")
    for name in sorted(names):
        if name.startswith(prefix):
            info = await _ask(connection, f"STREAM.INFO.{name}", within_s=_SOON_S)
            _check_made_with(info["config"], str(partitions))


def _check_made_with(present: dict[str, Any], partitions: str) -> None:
    made_with = present.get("metadata", {}).get(PARTITIONS_KEY, "an unknown number of")
    if made_with != partitions:
        raise LogError(
            f"the data folder holds a log with {made_with} partitions, but {partitions} are asked for. "
            f"Start with --partitions {made_with}; or stop headcount, delete the folder `jetstream` in "
            "the data folder (that forgets the last hour's fixes and who is where) and start again."
        )


async def _ask(
    connection: Connection, call: str, body: dict[str, Any] | None = None, *, within_s: float = _ANSWER_S
) -> dict[str, Any]:
    return await jetstream.request(connection, call, body, timeout_s=within_s)


def _bucket(name: str, max_bytes: int, **fields: Any) -> dict[str, Any]:
    """The stream under a key-value bucket with the newest value of each key."""
    return _stream(
        f"KV_{name}",
        [f"$KV.{name}.>"],
        max_bytes=max_bytes,
        allow_direct=True,
        allow_rollup_hdrs=True,
        allow_msg_ttl=True,
        **{"max_msgs_per_subject": 1, "deny_delete": True, "discard": "new", **fields},
    )

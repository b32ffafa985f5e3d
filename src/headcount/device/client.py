"""A device: takes positions, decides which to report, and delivers them."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from headcount.device.credentials import DeviceCertificates, DeviceCredentials
from headcount.device.fix_buffer import MAX_FIXES
from headcount.device.http_uplink import HttpUplink
from headcount.device.orders import DeviceOrder, OrderAnswers, OrderRefusedError
from headcount.device.outbox import FixOutbox
from headcount.device.positions import DevicePosition, position_of_payload
from headcount.device.reporting import COUNTED_REASONS, Reporter, ReportReason, ReportRules, ReportState
from headcount.device.saved_state import decode_state, encode_state
from headcount.device.site_areas import SiteAreas
from headcount.device.uplink import LinkCallbacks, Uplink
from headcount.errors import DeviceLibraryError

_log = logging.getLogger(__name__)

Transport = Literal["mqtt", "websocket", "http"]
#: Seconds for which `close` sends waiting fixes.
FLUSH_S = 5.0


@dataclass(frozen=True, slots=True)
class ClientStatus:
    """The state of a device."""

    connected: bool
    waiting: int  # fixes that are not acknowledged
    acknowledged: int  # fixes that are stored, since the start
    refused: int  # fixes that will never be stored, since the start
    knows_site: bool
    is_off_site: bool  # silent, because it is not on the site
    problem: str  # why there is no connection


class DeviceClient:
    """A device of headcount.

        with DeviceClient(read_credentials(Path("device.json")), buffer=Path("fixes.db")) as device:
            device.report(DevicePosition(time.time(), 52.67345, -8.57312, acc=8))

    `report` returns immediately: a thread delivers. Positions may come as often as the receiver has them; most are
    not sent.
    """

    def __init__(
        self,
        credentials: DeviceCredentials,
        *,
        transport: Transport = "mqtt",
        certificates: DeviceCertificates | None = None,
        buffer: Path | None = None,
        capacity: int = MAX_FIXES,
        rules: ReportRules | None = None,
        site: dict[str, Any] | None = None,
        silent_off_site: bool = True,
        on_command: Callable[[DeviceOrder], None] | None = None,
    ) -> None:
        """Connect with `start`, or by a `with` statement.

        Args:
            credentials: the device's account, from `read_credentials` or `redeem`.
            transport: MQTT, MQTT over WebSocket, or HTTP, which has no commands and no last will.
            certificates: files for TLS; default: the certificates that the system trusts.
            buffer: file for waiting fixes; default: memory, so that a restart loses them.
            capacity: maximum number of waiting fixes.
            rules: when to report; default: those of the kind.
            site: the site file, until the system publishes another one.
            silent_off_site: whether to send nothing off site, and nothing before the site is known.
            on_command: called for each command once the client has obeyed it, in another thread. It shows messages;
                if it raises, the command is refused with the text of the exception.

        Raises:
            DeviceLibraryError: a file cannot be used, or an address is missing.
            ValueError: `site` is not a site file.
        """
        #: Whether a file retains the fixes that wait when the device stops.
        self.has_file = buffer is not None
        self._lock, self._is_started = threading.Lock(), False
        self._silent_off_site = silent_off_site
        self._on_command = on_command
        self._position: DevicePosition | None = None
        self._kind = credentials.kind
        self._answers = OrderAnswers(self._execute)
        self._uplink = _uplink(credentials, transport, certificates or DeviceCertificates())
        self._outbox = FixOutbox(buffer, capacity)
        self._reporter = Reporter(credentials.kind, rules, self._saved_state())
        if site is not None:
            self._reporter.site = SiteAreas(site, credentials.kind)
        elif saved := self._outbox.saved("site"):
            self._take_site(saved.encode())

    def start(self) -> None:
        """Connect, in a thread that connects again whenever the connection breaks."""
        self._is_started = True
        self._uplink.start(self._outbox, LinkCallbacks(self._may_send, self._on_site, self._on_order))

    def report(self, position: DevicePosition) -> ReportReason | None:
        """Take a position; returns why it is sent, None if it is not."""
        with self._lock:
            self._position = position
            reason = self._reporter.judge(position)
            if reason is None:
                return None
            self._outbox.add(
                position.t,
                position.payload(),
                is_counted=reason in COUNTED_REASONS,
                state=encode_state(self._reporter.state),
            )
        self._uplink.wake()
        return reason

    @property
    def status(self) -> ClientStatus:
        """The state now."""
        link = self._uplink.status
        return ClientStatus(
            connected=link.connected,
            waiting=len(self._outbox),
            acknowledged=link.acknowledged,
            refused=link.refused,
            knows_site=self._reporter.site is not None,
            is_off_site=self._reporter.is_off_site,
            problem=link.problem,
        )

    def close(self, flush_s: float = FLUSH_S) -> None:
        """Send waiting fixes for at most `flush_s`, publish `offline`, and close; a file retains the others."""
        if self._is_started:
            self._uplink.close(flush_s)
            self._is_started = False
        self._outbox.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _saved_state(self) -> ReportState | None:
        saved = self._outbox.saved("state")
        try:
            return decode_state(saved) if saved else None
        except ValueError as error:
            _log.warning("the saved state is not valid: %s", error)
            return None

    def _may_send(self) -> bool:
        if self._silent_off_site and self._reporter.site is None:
            return False
        until, position = self._reporter.state.paused_until, self._position
        return (position.t if position else time.time()) >= until

    def _on_site(self, payload: bytes) -> None:
        if self._silent_off_site and self._take_site(payload):
            self._outbox.save("site", payload.decode())

    def _take_site(self, payload: bytes) -> bool:
        """Use a site; returns whether it is valid."""
        try:
            site = SiteAreas(json.loads(payload), self._kind)
        except (ValueError, RecursionError) as error:
            _log.warning("the published site is not valid: %s", error)
            return False
        with self._lock:
            is_first = self._reporter.site is None
            self._reporter.site = site
            if is_first and len(self._outbox):
                self._judge_again()
        return True

    def _judge_again(self) -> None:
        """Judge the waiting fixes of positions that were reported while no site was known."""
        state = self._reporter.state
        self._reporter.state = ReportState(interval_s=state.interval_s)
        retained = []
        for fix in self._outbox.after(0, MAX_FIXES):
            reason = self._reporter.judge(position_of_payload(fix.payload))
            if reason:
                retained.append((fix, reason in COUNTED_REASONS))
        self._reporter.state = replace(self._reporter.state, paused_until=state.paused_until)
        self._outbox.replace(retained, encode_state(self._reporter.state))

    def _on_order(self, payload: bytes) -> bytes | None:
        return self._answers.answer(payload, time.time())

    def _execute(self, order: DeviceOrder) -> None:
        with self._lock:
            state = self._reporter.state
            if order.name == "interval":
                self._reporter.state = replace(state, interval_s=order.interval_s)
            elif order.name == "pause" and order.until is not None:
                self._reporter.state = replace(state, paused_until=order.until)
            elif order.name == "report" and self._reporter.is_off_site:
                raise OrderRefusedError("off site")
            elif order.name == "report":
                self._reporter.request()
            self._outbox.save("state", encode_state(self._reporter.state))
        if self._on_command:
            self._on_command(order)
        elif order.name == "message":
            raise OrderRefusedError("no screen")


def _uplink(credentials: DeviceCredentials, transport: Transport, certificates: DeviceCertificates) -> Uplink:
    if transport == "http":
        try:
            return HttpUplink(credentials, certificates.context())
        except ValueError as error:
            raise _no_address(f"the URL of the API is missing: {error}") from error
    from headcount.device.mqtt_uplink import MqttUplink  # noqa: PLC0415  # HTTP needs no paho

    if transport == "mqtt":
        encrypted = credentials.tls
    elif credentials.websocket.startswith(("ws://", "wss://")):
        encrypted = credentials.websocket.startswith("wss://")
    else:
        raise _no_address("a WebSocket URL (ws:// or wss://) is missing")
    return MqttUplink(
        credentials,
        certificates.context() if encrypted else None,
        websocket=transport == "websocket",
        has_certificate=certificates.certificate is not None,
    )


def _no_address(problem: str) -> DeviceLibraryError:
    return DeviceLibraryError("credentials", problem, "Add it to them")

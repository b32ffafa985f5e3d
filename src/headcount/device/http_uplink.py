"""Fixes over HTTP: `POST /v1/fixes` in batches, and the site by `GET`. Commands need MQTT."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPException, HTTPMessage

from headcount.device.credentials import DeviceCredentials
from headcount.device.fix_buffer import WaitingFix
from headcount.device.http_requests import HttpTarget
from headcount.device.outbox import FixOutbox
from headcount.device.retry_delay import retry_delay_s
from headcount.device.uplink import TIMEOUT_S, LinkCallbacks, LinkStatus, random_share

_log = logging.getLogger(__name__)

#: Fixes of one request; the API accepts 1,000.
BATCH = 200
#: Seconds between two requests for the site.
SITE_INTERVAL_S = 600.0
POLL_INTERVAL_S = 1.0
#: The longest `Retry-After` that is obeyed.
MAX_RETRY_AFTER_S = 3600.0
_ALL_STORED, _SOME_STORED, _NONE_STORABLE = 200, 207, 422


class HttpUplink:
    """A connection that stays open between requests."""

    def __init__(self, credentials: DeviceCredentials, tls: ssl.SSLContext) -> None:
        """Take the account, whose `url` is the API's.

        Raises:
            ValueError: the URL is not valid.
        """
        self.status = LinkStatus()
        self._target = HttpTarget(credentials.url, tls, TIMEOUT_S)
        self._site_path = f"/v1/sites/{credentials.site}"
        account = base64.b64encode(f"{credentials.device}:{credentials.secret}".encode()).decode()
        self._headers = {"Authorization": f"Basic {account}"}
        self._site_due_s, self._site_etag = -1.0, ""
        self._wake, self._stop = threading.Event(), threading.Event()
        self._flush_until_s = 0.0
        self._thread = threading.Thread(target=self._run, name="headcount device", daemon=True)
        self._outbox: FixOutbox
        self._callbacks: LinkCallbacks

    def start(self, outbox: FixOutbox, callbacks: LinkCallbacks) -> None:
        """Start the thread."""
        self._outbox, self._callbacks = outbox, callbacks
        self._thread.start()

    def wake(self) -> None:
        """End the wait of the thread."""
        self._wake.set()

    def close(self, flush_s: float) -> None:
        """Send what is waiting."""
        self._flush_until_s = time.monotonic() + flush_s
        self._stop.set()
        self._wake.set()
        self._thread.join(flush_s + 1)

    def _run(self) -> None:
        failures = 0
        while not self._is_finished():
            try:
                retry_after_s = self._step()
            except (OSError, HTTPException, ValueError) as error:
                retry_after_s = 0.0
                self._fail(str(error) or type(error).__name__)
            if retry_after_s is None:
                failures = 0
                if not self._may_send():
                    self._wake.wait(POLL_INTERVAL_S)
                self._wake.clear()
            else:
                self._stop.wait(retry_delay_s(failures, random_share(), retry_after_s))
                failures += 1
        self._target.close()

    def _is_finished(self) -> bool:
        if not self._stop.is_set():
            return False
        return time.monotonic() >= self._flush_until_s or bool(self.status.problem) or not len(self._outbox)

    def _may_send(self) -> bool:
        return bool(self._outbox.after(0, 1)) and self._callbacks.may_send()

    def _step(self) -> float | None:
        """Request the site if it is due, and send a batch; after a failure, the seconds to wait at least."""
        if time.monotonic() >= self._site_due_s:
            self._request_site()
        if not self._may_send():
            return None
        fixes = self._outbox.after(0, BATCH)
        body = b"[" + b",".join(fix.payload for fix in fixes) + b"]"
        headers = {**self._headers, "Idempotency-Key": hashlib.sha256(body).hexdigest()}
        status, answer, text = self._target.request("POST", "/v1/fixes", body, headers)
        if status in (_ALL_STORED, _SOME_STORED):
            self._take_verdicts(fixes, json.loads(text)["fixes"])
        elif status == _NONE_STORABLE and b"/fixes-rejected" in text:
            self._take_verdicts(fixes, [{"verdict": "refused"}] * len(fixes))
        else:
            self._fail(f"HTTP {status} for {len(fixes)} fixes")
            return _retry_after_s(answer.headers)
        self.status.connected, self.status.problem = True, ""
        return None

    def _take_verdicts(self, fixes: Sequence[WaitingFix], verdicts: Sequence[Mapping[str, str]]) -> None:
        """Each verdict is final: the fix is stored, or never will be."""
        self._outbox.acknowledge({fix.number for fix in fixes})
        stored = sum(each["verdict"] == "stored" for each in verdicts)
        self.status.acknowledged += stored
        self.status.refused += len(fixes) - stored
        if stored < len(fixes):
            reasons = sorted({each["verdict"] for each in verdicts} - {"stored"})
            _log.warning(
                "%d of %d fixes are refused: %s", len(fixes) - stored, len(fixes), ", ".join(reasons)
            )

    def _request_site(self) -> None:
        headers = {"If-None-Match": self._site_etag} if self._site_etag else {}
        status, answer, text = self._target.request("GET", self._site_path, headers=headers)
        if status == _ALL_STORED:
            self._callbacks.on_site(text)
            self._site_etag = answer.headers.get("ETag", "")
        elif status != 304:
            _log.warning("HTTP %d for the site", status)
        self.status.connected, self.status.problem = True, ""
        self._site_due_s = time.monotonic() + SITE_INTERVAL_S

    def _fail(self, problem: str) -> None:
        if problem != self.status.problem:
            _log.warning("%s", problem)
        self.status.connected, self.status.problem = False, problem


def _retry_after_s(headers: HTTPMessage) -> float:
    """The seconds of `Retry-After`, 0 where it has none."""
    text = headers.get("Retry-After", "")
    return min(float(text), MAX_RETRY_AFTER_S) if text.isdecimal() else 0.0

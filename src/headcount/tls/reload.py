"""Reloading certificates that change while a server runs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from headcount.errors import CertificateError
from headcount.runtime.tasks import background
from headcount.tls.certificates import refresh
from headcount.tls.tls_files import TlsFiles

_log = logging.getLogger(__name__)

#: Interval at which the files are checked for changes.
POLL_INTERVAL_S = 2.0
#: Interval at which our own certificates are checked for their expiry.
RENEW_INTERVAL_S = 3600.0


async def reload_on_change(files: TlsFiles, on_change: Callable[[], None]) -> None:
    """Call `on_change` whenever the files have changed and are valid; never ends.

    A certificate and its key are replaced one after the other: files that do not match are checked again, and
    the problem is logged once. Until they match, the server uses the previous ones.
    """
    loaded = await asyncio.to_thread(_digest, files.watched)
    rejected: bytes | None = None
    loop = asyncio.get_running_loop()
    renew_s = loop.time() + RENEW_INTERVAL_S
    while True:
        await asyncio.sleep(POLL_INTERVAL_S)
        if loop.time() > renew_s:
            renew_s = loop.time() + RENEW_INTERVAL_S
            await _renew(files)
        now = await asyncio.to_thread(_digest, files.watched)
        if now in {loaded, rejected}:
            continue
        try:
            await asyncio.to_thread(refresh, files)
            on_change()
        except CertificateError as error:
            await asyncio.sleep(POLL_INTERVAL_S)  # the other file may be on its way
            if await asyncio.to_thread(_digest, files.watched) == now:
                rejected = now
                _log.error("the new certificate is not valid: %s", error)
            continue
        loaded, rejected = now, None
        _log.info("reloaded the certificate in %s for new connections", files.certificate)


@contextlib.asynccontextmanager
async def reloading(files: TlsFiles | None, on_change: Callable[[], None]) -> AsyncIterator[None]:
    """Run `reload_on_change` during the body; does nothing without files."""
    if files is None:
        yield
        return
    async with background(reload_on_change(files, on_change), "certificates"):
        yield


async def _renew(files: TlsFiles) -> None:
    try:
        await asyncio.to_thread(refresh, files)
    except CertificateError as error:
        _log.warning("%s", error)


def _digest(paths: tuple[Path, ...]) -> bytes:
    """A digest of the files' content, which replaced links and folders (Kubernetes, certbot) change, too."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError:
            digest.update(b"nothing")
    return digest.digest()

"""Certificates that change while a server runs: seen by their content, loaded when they fit together."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from headcount.errors import CertificateError
from headcount.tls.certificates import refresh
from headcount.tls.files import TlsFiles

_log = logging.getLogger(__name__)

#: The files are looked at this often: whoever renews a certificate waits no longer for it to be shown.
POLL_INTERVAL_S = 2.0
#: Whether what we made ourselves ends soon is asked this often.
RENEW_INTERVAL_S = 3600.0


async def reload_on_change(files: TlsFiles, act: Callable[[], None]) -> None:
    """Call `act` whenever the files hold something else that can be used; never ends.

    A certificate and its key are replaced one after the other: what doesn't fit together is looked at
    again, and said once when it stays so. Until it fits, the server shows what it had.
    """
    seen = await asyncio.to_thread(_digest, files.watched)
    complained: bytes | None = None
    loop = asyncio.get_running_loop()
    renew_s = loop.time() + RENEW_INTERVAL_S
    while True:
        await asyncio.sleep(POLL_INTERVAL_S)
        if loop.time() > renew_s:
            renew_s = loop.time() + RENEW_INTERVAL_S
            await _renew(files)
        now = await asyncio.to_thread(_digest, files.watched)
        if now in {seen, complained}:
            continue
        try:
            await asyncio.to_thread(refresh, files)
            act()
        except CertificateError as error:
            await asyncio.sleep(POLL_INTERVAL_S)  # the other file may be on its way
            if await asyncio.to_thread(_digest, files.watched) == now:
                complained = now
                _log.error("the new certificate isn't taken: %s", error)
            continue
        seen, complained = now, None
        _log.info("the certificate in %s has changed: new connections see the new one", files.certificate)


@contextlib.asynccontextmanager
async def reloading(files: TlsFiles | None, act: Callable[[], None]) -> AsyncIterator[None]:
    """The same for as long as the body runs; nothing where there are no files."""
    if files is None:
        yield
        return
    task = asyncio.create_task(reload_on_change(files, act), name="certificates")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _renew(files: TlsFiles) -> None:
    try:
        await asyncio.to_thread(refresh, files)
    except CertificateError as error:
        _log.warning("%s", error)


def _digest(paths: tuple[Path, ...]) -> bytes:
    """A digest of the files; who replaces a link or a folder (Kubernetes, certbot) changes it too."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError:
            digest.update(b"nothing")
    return digest.digest()

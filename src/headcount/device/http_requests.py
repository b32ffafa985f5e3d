"""HTTP requests to one server over a connection that stays open; redirects are not followed."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import urlsplit

#: Larger answers are not read; a site file has 8 MB at most.
MAX_ANSWER_BYTES = 16 << 20


class HttpTarget:
    """A server by its base URL."""

    def __init__(self, url: str, tls: ssl.SSLContext, timeout_s: float) -> None:
        """Connect with the first request.

        Raises:
            ValueError: it is not a URL of the form http(s)://HOST[:PORT][/PATH].
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url[:200]!r} is not of the form http(s)://HOST[:PORT]")
        self._path = parts.path.rstrip("/")
        self._connection = (
            HTTPSConnection(parts.hostname, parts.port, timeout=timeout_s, context=tls)
            if parts.scheme == "https"
            else HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
        )

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, HTTPResponse, bytes]:
        """The status, the response with its headers, and the body.

        Raises:
            OSError: the server cannot be reached.
            HTTPException: it does not answer in HTTP.
        """
        sent = {"Content-Type": "application/json"} if body is not None else {}
        sent |= headers or {}
        is_reused = self._connection.sock is not None
        try:
            return self._exchange(method, path, body, sent)
        except ConnectionError:
            if not is_reused:
                raise
        return self._exchange(method, path, body, sent)  # the server had closed the idle connection

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, HTTPResponse, bytes]:
        try:
            self._connection.request(method, self._path + path, body, headers)
            response = self._connection.getresponse()
            return response.status, response, response.read(MAX_ANSWER_BYTES)
        except (OSError, HTTPException):
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        self._connection.close()

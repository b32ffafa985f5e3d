"""A network between a device and a server that a test can cut."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress
from typing import Self


class Relay:
    """Forwards TCP connections to a port of this machine, except while it is cut."""

    def __init__(self, port: int) -> None:
        """Listen on a free port."""
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._lock = threading.Lock()
        self._is_cut = self._is_closed = False
        self.accepted = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed = True
        self._thread.join()
        self.cut()
        self._listener.close()
        self._selector.close()

    def cut(self) -> None:
        """Close all connections, and each further one."""
        with self._lock:
            self._is_cut = True
            for end in list(self._pairs):
                self._close(end)

    def restore(self) -> None:
        """Forward connections again."""
        self._is_cut = False

    def _run(self) -> None:
        while not self._is_closed:
            for key, _ in self._selector.select(0.1):
                with self._lock, suppress(OSError):
                    self._serve(key.fileobj)  # type: ignore[arg-type]

    def _serve(self, ready: socket.socket) -> None:
        if ready is self._listener:
            near, _ = self._listener.accept()
            if self._is_cut:
                near.close()
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._to), timeout=5)
            except OSError:
                near.close()
                return
            self.accepted += 1
            self._pairs |= {near: far, far: near}
            for end in (near, far):
                self._selector.register(end, selectors.EVENT_READ)
        elif ready in self._pairs:
            try:
                data = ready.recv(65_536)
                self._pairs[ready].sendall(data)
            except OSError:
                data = b""
            if not data:
                self._close(ready)

    def _close(self, end: socket.socket) -> None:
        other = self._pairs.pop(end, None)
        if other is None:
            return
        self._pairs.pop(other, None)
        for each in (end, other):
            self._selector.unregister(each)
            each.close()

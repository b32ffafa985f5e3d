"""The process of one plug-in: `python -m headcount.decoders.plugin_host SOCKET MODULE FUNCTION`.

It imports the plug-in, writes whether that worked, and then answers each message with its results. It ends when the
socket does. Frames have their length before them, four bytes, big-endian.
"""

from __future__ import annotations

import importlib
import io
import os
import resource
import socket
import struct
import sys
import traceback
from pathlib import Path

import msgspec

from headcount.decoders.plugin_results import encode_error, encode_results
from headcount.decoding import Decode, DecodeError, Message

#: Address space of the process: the interpreter has 0.1 GB, numpy 0.5 GB.
MAX_MEMORY_BYTES = 1 << 30
LENGTH = struct.Struct(">I")
_read_item = msgspec.msgpack.Decoder(tuple[bytes, Message]).decode


def main(number: str, module: str, function: str) -> None:
    """Serve messages that arrive at a socket, given by its file descriptor."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with socket.socket(fileno=int(number)) as connection, connection.makefile("rwb") as pipe:
        try:
            decode = getattr(importlib.import_module(module), function)
        except Exception as error:  # noqa: BLE001  # anything can be wrong with a plug-in
            traceback.print_exc()
            _write(pipe, f"{type(error).__name__}: {error}".encode())
            return
        _write(pipe, b"")
        while head := pipe.read(LENGTH.size):
            payload, message = _read_item(pipe.read(LENGTH.unpack(head)[0]))
            _write(pipe, _results(decode, payload, message))


def _results(decode: Decode, payload: bytes, message: Message) -> bytes:
    try:
        return encode_results(decode(payload, message))
    except DecodeError as error:
        return encode_results([error])
    except Exception as error:  # noqa: BLE001  # anything can be wrong with a plug-in
        frame = traceback.extract_tb(error.__traceback__)[-1]
        traceback.print_exc()
        return encode_error(error, f"{Path(frame.filename).name} line {frame.lineno}")


def _write(pipe: io.BufferedRWPair, content: bytes) -> None:
    pipe.write(LENGTH.pack(len(content)) + content)
    pipe.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)  # threads of the plug-in are not waited for

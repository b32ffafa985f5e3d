"""A plug-in in a process of its own, with limits on time and memory.

The process is started again after it crashed or was killed because of a time-out. Then messages are sent one by one
for a while. The one that fails twice alone is rejected: a single failure may be that of a busy machine.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import msgspec

from headcount.decoders.plugin_host import LENGTH
from headcount.decoders.plugin_results import MAX_RESULT_BYTES, decode_results
from headcount.decoders.plugins import Plugin
from headcount.decoding import Decoded, DecodeError, Message
from headcount.errors import DecoderError
from headcount.runtime.processes import ChildProcess, start_process
from headcount.settings.environment import foreign_environment

#: Time for one message, and for the start with the import of the plug-in.
MESSAGE_S, START_S = 1.0, 30.0
#: Messages that are sent to the process before their results are read.
WINDOW = 20
#: Libraries for arrays reserve address space for each thread.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

Item = tuple[bytes, Message]
_encode_item = msgspec.msgpack.Encoder().encode


class PluginProcess:
    """Decodes messages with a plug-in, as an async context manager."""

    def __init__(
        self, plugin: Plugin, *, message_s: float = MESSAGE_S, output: Path | None = Path(os.devnull)
    ) -> None:
        """Write the plug-in's output to a file; None: to our own. It may have names of people."""
        self.plugin = plugin
        self.starts = 0
        self._message_s = message_s
        self._output = output
        self._process: ChildProcess | None = None
        self._reader = asyncio.StreamReader()
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._kill()

    async def start(self) -> None:
        """Start the process unless it runs.

        Raises:
            DecoderError: the plug-in cannot be imported.
        """
        if self._process is not None and self._process.running:
            return
        await self._kill()
        ours, theirs = socket.socketpair()
        self._reader, self._writer = await asyncio.open_connection(sock=ours)
        arguments = (theirs.fileno(), self.plugin.module, self.plugin.function)
        with theirs:
            self._process = await start_process(
                f"decoder {self.plugin.name}",
                [sys.executable, "-P", "-m", "headcount.decoders.plugin_host", *map(str, arguments)],
                environment=foreign_environment() | _ENVIRONMENT,
                output=self._output,
                sockets=(theirs,),
            )
        self.starts += 1
        problem = await self._answer(START_S)
        if problem:
            await self._kill()
            text = problem.problem if isinstance(problem, DecodeError) else problem.decode(errors="replace")
            raise DecoderError(
                self.plugin.name, f"{self.plugin.package} cannot be imported: {text}", "Install it again"
            )

    async def decode(self, items: Sequence[Item], within_s: float) -> list[list[Decoded]]:
        """The results of the first messages, of one at least: of no more when `within_s` is over.

        Raises:
            DecoderError: the plug-in cannot be imported.
        """
        end_s = time.monotonic() + within_s
        results: list[list[Decoded]] = []
        alone = 0  # messages that are sent one by one, after a failure that may be that of a later message
        failed = -1
        while len(results) < len(items) and (not results or time.monotonic() < end_s):
            await self.start()
            number = len(results)
            failure = await self._decode_window(items[number : number + (1 if alone else WINDOW)], results)
            if failure is None:
                alone = max(alone - 1, 0)
                continue
            await self._kill()
            if not alone:
                alone = WINDOW
            elif failed < number:
                failed = number
            else:
                results.append([failure])
        return results

    async def _decode_window(self, items: Sequence[Item], results: list[list[Decoded]]) -> DecodeError | None:
        """Append the results of messages until one fails."""
        if self._writer is not None:
            contents = map(_encode_item, items)
            self._writer.write(b"".join(LENGTH.pack(len(content)) + content for content in contents))
        for _ in items:
            answer = await self._answer(self._message_s)
            if isinstance(answer, DecodeError):
                return answer
            results.append(decode_results(answer))
        return None

    async def _answer(self, within_s: float) -> bytes | DecodeError:
        try:
            async with asyncio.timeout(within_s):
                (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
                if length > MAX_RESULT_BYTES:
                    return DecodeError("results", f"the decoder returned more than {MAX_RESULT_BYTES} bytes")
                return await self._reader.readexactly(length)
        except TimeoutError:
            return DecodeError("timeout", f"the decoder took longer than {within_s:g} s")
        except (asyncio.IncompleteReadError, OSError):
            return DecodeError("crash", f"the decoder's process ended: {await self._ending()}")

    async def _ending(self) -> str:
        if self._process is None:
            return "not started"
        await self._process.stop(self._message_s)
        return self._process.ending

    async def _kill(self) -> None:
        if self._writer is not None:
            self._writer.close()  # a process that is about to start ends by this
            self._writer = None
        if self._process is not None:
            await self._process.stop()
            self._process = None

"""A system that runs inside of an async context."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class RunningSystem(ABC):
    """Starts on entry, and stops on exit or if the start fails."""

    @abstractmethod
    async def start(self) -> None:
        """Start, and wait until ready."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop everything that was started."""

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

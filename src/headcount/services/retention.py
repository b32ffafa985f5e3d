"""The retention report: how old the oldest stored data really is."""

from __future__ import annotations

import time
from pathlib import Path

from headcount.messaging.connection import Connection
from headcount.privacy import retention_report
from headcount.privacy.retention_report import StoreAge


class RetentionService:
    """Report the age of stored data."""

    def __init__(self, client: Connection) -> None:
        """Read the streams over a connection with all rights."""
        self._client = client

    async def report(self, data: Path) -> list[StoreAge]:
        """Return every store of the deployment; `data` is its data folder.

        Raises:
            LogError: the log does not answer.
            DataFolderError: a file cannot be read.
        """
        return await retention_report.store_ages(self._client, data, time.time())

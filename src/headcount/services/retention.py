"""The retention report: how old the oldest stored data really is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from headcount.messaging.connection import Connection

if TYPE_CHECKING:  # the report reads Parquet files: Arrow is loaded for it only
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
        from headcount.privacy import retention_report  # noqa: PLC0415  # see above

        return await retention_report.store_ages(self._client, data, time.time())

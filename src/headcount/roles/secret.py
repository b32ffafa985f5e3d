"""The secret that all processes of a deployment share."""

from __future__ import annotations

import secrets
from pathlib import Path

from headcount.broker.data_folder import write_private
from headcount.errors import DataFolderError, SettingsError
from headcount.settings.deployment import Settings

MIN_SECRET = 16


def secret_of(settings: Settings) -> str:
    """The deployment's secret: that of `secret_file`, else one in the data folder, made at the first start.

    Raises:
        DataFolderError: the folder can't be read or written.
        SettingsError: the file can't be read, or its secret is too short.
    """
    if settings.secret_file is not None:
        return _given_secret(settings.secret_file)
    path = settings.data / "secret"
    try:
        settings.data.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_private(path, secrets.token_urlsafe(32))
        return path.read_text().strip()
    except OSError as error:
        raise DataFolderError(
            str(settings.data),
            f"can't be used: {error}",
            "Choose another one with --data, or correct its permissions",
        ) from error


def _given_secret(path: Path) -> str:
    try:
        secret = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError("secret_file", f"{path} cannot be read: {error}") from error
    if len(secret) < MIN_SECRET:
        raise SettingsError("secret_file", f"{path} has fewer than {MIN_SECRET} characters")
    return secret

"""The secret that all processes of a deployment share."""

from __future__ import annotations

import secrets
from pathlib import Path

from headcount.errors import DataFolderError, SettingsError
from headcount.runtime.private_files import folder_errors, write_private
from headcount.settings.deployment import Settings

MIN_SECRET = 16


def secret_of(settings: Settings) -> str:
    """The deployment's secret: that of `secret_file`, else one in the data folder, made at the first start.

    Raises:
        DataFolderError: the folder can't be read or written, or its secret was lost.
        SettingsError: the file can't be read, or its secret is too short.
    """
    if settings.secret_file is not None:
        return _given_secret(settings.secret_file)
    path = settings.data / "secret"
    with folder_errors(settings.data):
        settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _check_none_was_lost(settings.data)
            write_private(path, secrets.token_urlsafe(32).encode())
        return path.read_text().strip()


def _check_none_was_lost(data: Path) -> None:
    """Refuse to replace the secret on which the data depend: pseudonyms, passwords, the audit log's chain.

    Raises:
        DataFolderError: the folder holds data of a secret that is gone.
    """
    found = [name for name in ("jetstream", "history") if (data / name).exists()]
    if found:
        raise DataFolderError(
            str(data / "secret"),
            f"is missing, but {' and '.join(found)} depend{'s' if len(found) == 1 else ''} on it",
            "Restore it from a backup. To start with an empty log and registry instead, move "
            f"{' and '.join(found)} to another place; devices must be registered again",
        )


def _given_secret(path: Path) -> str:
    try:
        secret = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError("secret_file", f"{path} cannot be read: {error}") from error
    if len(secret) < MIN_SECRET:
        raise SettingsError("secret_file", f"{path} has fewer than {MIN_SECRET} characters")
    return secret

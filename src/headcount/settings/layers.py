"""Where values come from: a flag wins over an environment variable, that over the file, that over the default."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from headcount.errors import SettingsError
from headcount.settings.deployment import CONFIG_VARIABLE, Settings
from headcount.settings.environment import process_environment
from headcount.settings.model import Setting, settings_of

#: Read where neither `--config` nor HEADCOUNT_CONFIG names another file.
CONFIG_FILE = Path("headcount.toml")


@dataclass(frozen=True, slots=True)
class Layers:
    """The values that a user gave, by key, as they were written.

    Args:
        flags: texts, booleans for switches.
        variables: the environment.
        file: values of the configuration file.
        path: that file, for errors.
    """

    flags: Mapping[str, str | bool] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    file: Mapping[str, Any] = field(default_factory=dict)
    path: Path = CONFIG_FILE

    @classmethod
    def read(cls, flags: Mapping[str, str | bool], config: Path | None = None) -> Layers:
        """Take the flags, and read environment and configuration file.

        Raises:
            SettingsError: the file can't be read, or holds an unknown name.
        """
        variables = process_environment()
        named = config or (Path(variables[CONFIG_VARIABLE]) if variables.get(CONFIG_VARIABLE) else None)
        path = named or CONFIG_FILE
        file = _read(path) if named or path.exists() else {}
        return cls(flags, variables, file, path)

    def has(self, key: str) -> bool:
        """Whether the user gave a value."""
        return self._find(settings_of(Settings)[key]) is not None

    def load(self, keys: Iterable[str] | None = None, defaults: Mapping[str, Any] | None = None) -> Settings:
        """Build the settings.

        Args:
            keys: read only these settings; the others keep their default.
            defaults: by key, instead of those that are declared.

        Raises:
            SettingsError: a value is not valid, or values contradict each other. Its name is that of the
                flag, the variable or the place in the file that gave the value.
        """
        declared = settings_of(Settings)
        values: dict[str, Any] = dict(defaults or {})
        try:
            for key in declared if keys is None else keys:
                if given := self._find(declared[key]):
                    values[key] = given.value(declared[key])
            return Settings.from_values(values)
        except SettingsError as error:
            raise self.named(error) from error

    def named(self, error: SettingsError) -> SettingsError:
        """The same error, with the key replaced by the name of what gave the value; the flag if nothing did."""
        setting = settings_of(Settings).get(error.name)
        if setting is None:
            return error
        given = self._find(setting)
        return SettingsError(given.source if given else setting.flag, error.problem)

    def _find(self, setting: Setting) -> _Given | None:
        """The value that wins; an empty variable counts as not set."""
        if setting.key in self.flags:
            return _Given(self.flags[setting.key], setting.flag)
        if text := self.variables.get(setting.variable):
            return _Given(text, setting.variable)
        if setting.key in self.file:
            return _Given(self.file[setting.key], f"{self.path}: {setting.key}", typed=True)
        return None


class _Given(NamedTuple):
    """A value as it was written, and the name of the flag, the variable or the place in the file."""

    raw: Any
    source: str
    typed: bool = False  # TOML has types of its own

    def value(self, setting: Setting) -> Any:
        if self.typed or not isinstance(self.raw, str):
            return setting.convert(self.raw)
        return setting.parse(self.raw)


def _read(path: Path) -> dict[str, Any]:
    """The values of a configuration file, by key.

    Raises:
        SettingsError: it can't be read, or holds an unknown name.
    """
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(str(path), f"cannot be read: {error}") from error
    values: dict[str, Any] = {}
    for name, value in content.items():
        table = value if isinstance(value, dict) else None
        found = {name: value} if table is None else {f"{name}.{inner}": table[inner] for inner in table}
        values |= {key.replace("-", "_"): each for key, each in found.items()}
    known = settings_of(Settings)
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "docs/reference/settings.md lists all settings"
            raise SettingsError(f"{path}: {key}", f"unknown setting; {hint}")
    return values

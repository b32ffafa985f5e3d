"""A setting is a field of a frozen dataclass: `port: int = setting(4222, "…", low=1, high=65535)`.

The field gives name, type and default; the rest is given to `setting`. From that follow, for a field `max_workers`
of the section `scale`:

    flag                 --max-workers
    variable             HEADCOUNT_SCALE_MAX_WORKERS
    configuration file   max_workers under [scale]
    key                  scale.max_workers: its name in errors, and its heading in the reference
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from headcount.errors import SettingsError
from headcount.settings.environment import PREFIX
from headcount.settings.formats import TextFormat

#: Above any sensible number; it also keeps infinity out.
_LARGEST = 1e12
_BOOLEANS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Declaration:
    """Details of a setting besides its name, type and default."""

    help: str
    low: float = 0
    high: float = _LARGEST
    above_low: bool = False  # whether `low` itself is out of range
    format: TextFormat | None = None
    folder: bool = False  # of a path: whether it names a folder, not a file
    default_text: str = ""
    group: str = ""
    variable: str = ""
    flag: str = ""
    secret: bool = False  # whether a value can hold a password: errors and representations omit it


def setting(default: Any, text: str, *, factory: Callable[[], Any] | None = None, **declared: Any) -> Any:
    """Declare a field of a settings class.

    Args:
        default: a value of the field's type, or None where the value is derived or optional.
        text: the help text, one sentence.
        factory: computes the default instead.
        declared: fields of `Declaration`.
    """
    declaration = Declaration(text, **declared)
    metadata, shown = {"declaration": declaration}, not declaration.secret
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata, repr=shown)
    return dataclasses.field(default=default, metadata=metadata, repr=shown)


@dataclass(frozen=True, slots=True)
class Setting:
    """A declared setting: how its value is read, checked and written."""

    key: str
    section: str
    name: str
    field: str  # its attribute: the name, with `_` after a word that Python reserves
    flag: str
    variable: str
    type: type
    choices: tuple[str, ...]
    default: Any
    declared: Declaration

    @property
    def default_text(self) -> str:
        """The default, for people."""
        if self.declared.default_text:
            return self.declared.default_text
        if self.type is bool:
            return str(self.default).lower()
        return f"{self.default:g}" if self.type is float else str(self.default)

    @property
    def values(self) -> str:
        """The valid values, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.type is bool:
            return "true or false"
        if self.type in (int, float):
            low, high, above = self.declared.low, self.declared.high, self.declared.above_low
            start = (
                f"above {low:g}"
                if above
                else f"{low:g} to {high:.0f}"
                if high < _LARGEST
                else f"at least {low:g}"
            )
            return f"{'a whole number' if self.type is int else 'a number'}, {start}"
        if text := self.declared.format:
            return f"{text.name}: {text.rule}" if text.rule else text.name
        if self.type is Path:
            return "a folder" if self.declared.folder else "a file"
        return "text"

    @property
    def metavar(self) -> str:
        """Stands for the value in `--help`."""
        if self.choices:
            return f"[{'|'.join(self.choices)}]"
        if self.declared.format:
            return self.declared.format.metavar
        return {int: "INTEGER", float: "NUMBER", Path: "PATH"}.get(self.type, "TEXT")

    def parse(self, text: str) -> Any:
        """Read a value from a flag or a variable.

        Raises:
            SettingsError: it is not of the setting's type.
        """
        if self.choices:
            return next((each for each in self.choices if each.lower() == text.lower()), text)
        if self.type is bool:
            if text.lower() not in _BOOLEANS:
                raise self.error(text)
            return _BOOLEANS[text.lower()]
        try:
            return self.type(text)
        except ValueError as error:
            raise self.error(text) from error

    def convert(self, value: Any) -> Any:
        """Take a value of a TOML file.

        Raises:
            SettingsError: it is not of the setting's type.
        """
        accepted = {float: (int, float), Path: (str,)}.get(self.type, (self.type,))
        if not isinstance(value, accepted) or (isinstance(value, bool) and self.type is not bool):
            raise self.error(value)
        return self.type(value)

    def check(self, value: Any) -> None:
        """Check range and format.

        Raises:
            SettingsError: the value is out of range or has the wrong format.
        """
        declared = self.declared
        if self.choices and value not in self.choices:
            raise self.error(value)
        if self.type in (int, float):
            above = value > declared.low if declared.above_low else value >= declared.low
            if not (above and value <= declared.high):
                raise self.error(value)
        if isinstance(value, Path) and value.exists() and value.is_dir() != declared.folder:
            is_a, use = ("a file", "a folder") if declared.folder else ("a folder", "a file")
            raise SettingsError(self.key, f"'{value}' is {is_a}; use {use}")
        if declared.format and value and not declared.format.is_valid(value):
            rule = f"; use {declared.format.rule}" if declared.format.rule else ""
            shown = "the value" if declared.secret else repr(value)
            raise SettingsError(self.key, f"{shown} is not a valid {declared.format.name}{rule}")

    def error(self, value: Any) -> SettingsError:
        """The error for a value that is not valid."""
        shown = f"{value:g}" if isinstance(value, float) else repr(value)
        return SettingsError(self.key, f"{shown} is not valid; use {self.values}")

    def text(self, value: Any) -> str:
        """A value as an environment variable holds it; paths are absolute, None is empty."""
        if value is None:
            return ""
        return str(value.resolve() if isinstance(value, Path) else value)


@functools.cache
def settings_of(cls: type) -> dict[str, Setting]:
    """The settings that a class declares, by key; those of its sections too."""
    section: str = getattr(cls, "SECTION", "")
    hints = typing.get_type_hints(cls)
    found: dict[str, Setting] = {}
    for field in dataclasses.fields(cls):
        declared = field.metadata.get("declaration")
        if declared is None:
            found |= settings_of(hints[field.name])
            continue
        name = field.name.rstrip("_")
        key = f"{section}.{name}" if section else name
        kind, choices = _type(hints[field.name])
        found[key] = Setting(
            key,
            section,
            name,
            field.name,
            declared.flag or f"--{getattr(cls, 'FLAG_PREFIX', '')}{name.replace('_', '-')}",
            declared.variable or PREFIX + key.replace(".", "_").upper(),
            kind,
            choices,
            None if field.default is dataclasses.MISSING else field.default,
            declared,
        )
    return found


def _type(hint: Any) -> tuple[type, tuple[str, ...]]:
    """The type of a field's values, and the choices if there are only some."""
    if types.NoneType in typing.get_args(hint):
        hint = next(inner for inner in typing.get_args(hint) if inner is not types.NoneType)
    if typing.get_origin(hint) is Literal:
        return str, typing.get_args(hint)
    return hint, ()


def check_all(settings: Any) -> None:
    """Check each value of a settings object by itself; None is the absence of a value.

    Raises:
        SettingsError: one is out of range or has the wrong format.
    """
    section = getattr(settings, "SECTION", "")
    cls: Any = type(settings)
    for one in settings_of(cls).values():
        if one.section == section and (value := getattr(settings, one.field)) is not None:
            one.check(value)

"""The scaler's flags: one for each field of its settings."""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click

from headcount.scaling.scale_settings import ScaleSettings, help_of, kind_of, option, variable

_PREFIX = "scale__"


def scale_options(function: Callable[..., None]) -> Callable[..., None]:
    """All flags of the scaler, for a command whose keyword arguments go through `taken`."""
    for item in reversed(fields(ScaleSettings)):
        kind = kind_of(item.name)
        choices = typing.get_args(kind)
        flag = option(item.name)
        declaration = f"{flag}/--no-{flag[2:]}" if kind is bool else flag
        function = click.option(
            declaration,
            _PREFIX + item.name,
            type=click.Choice(choices) if choices else kind,
            default=item.default,
            envvar=variable(item.name),
            show_default=item.default not in {None, ""},
            show_envvar=True,
            help=help_of(item.name),
        )(function)
    return function


def taken(values: dict[str, Any]) -> ScaleSettings:
    """Take the scaler's values out of a command's keyword arguments.

    Raises:
        SettingsError: they can't be, or don't go together.
    """
    names = [item.name for item in fields(ScaleSettings)]
    return ScaleSettings(**{name: values.pop(_PREFIX + name) for name in names})

"""Command-line options made of the declared settings; a command receives them as one object, `settings`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import click

from headcount.cli import CONFIG, LAYERS
from headcount.settings.deployment import Settings
from headcount.settings.layers import Layers
from headcount.settings.model import Setting, settings_of

Command = Callable[..., None]


class SettingOption(click.Option):
    """The flag of a setting. Its text is parsed by `Layers`, so that all sources are treated alike."""

    def __init__(
        self, declarations: Sequence[str], *, setting: Setting, default_text: str, hidden: bool
    ) -> None:
        """Declare the flag, and `--no-…` for a switch."""
        switch = setting.type is bool
        super().__init__(
            declarations,
            type=bool if switch else str,
            default=None,
            metavar=None if switch else setting.metavar,
            help=f"{setting.declared.help}  [{setting.variable}; default: {default_text}]",
            hidden=hidden,
        )
        self.group = setting.declared.group


class SettingsCommand(click.Command):
    """A command whose help lists its settings by group, after its own options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections of options."""
        groups: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                group = parameter.group if isinstance(parameter, SettingOption) else "Options"
                groups.setdefault(group, []).append(record)
        for group, records in groups.items():
            with formatter.section(group):
                formatter.write_dl(records)


def takes_settings(
    *names: str,
    hidden: Iterable[str] = (),
    defaults: Mapping[str, Any] = MappingProxyType({}),
    default_texts: Mapping[str, str] = MappingProxyType({}),
) -> Callable[[Command], Command]:
    """Add the flags of settings to a command, and pass it `settings`.

    Args:
        names: which settings: keys and groups.
        hidden: those that the command takes, too, but `--help` does not show.
        defaults: by key, instead of the declared ones.
        default_texts: by key, how `--help` describes a default.
    """
    unseen = _chosen(hidden)
    taken = _chosen(names) | unseen
    texts = {key: str(value) for key, value in defaults.items()} | dict(default_texts)

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        @click.pass_context
        def with_settings(ctx: click.Context, /, *args: Any, **values: Any) -> None:
            given = {key: values.pop(_parameter(key)) for key in taken}
            flags = {key: value for key, value in given.items() if value is not None}
            layers = ctx.meta[LAYERS] = Layers.read(flags, ctx.meta.get(CONFIG))
            function(*args, settings=layers.load(taken, defaults), **values)

        command: Command = with_settings
        for key, setting in reversed(taken.items()):
            switch = f"/--no-{setting.flag[2:]}" if setting.type is bool else ""
            command = click.option(
                setting.flag + switch,
                _parameter(key),
                cls=SettingOption,
                setting=setting,
                default_text=texts.get(key, setting.default_text),
                hidden=key in unseen,
            )(command)
        return command

    return decorate


def _chosen(names: Iterable[str]) -> dict[str, Setting]:
    names = set(names)
    return {
        key: one for key, one in settings_of(Settings).items() if key in names or one.declared.group in names
    }


def _parameter(key: str) -> str:
    """The name of a setting among the arguments of a command."""
    return key.replace(".", "__")

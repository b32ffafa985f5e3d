"""Every setting can be given by flag, variable and file, and errors name where a value came from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from headcount.cli import LAYERS
from headcount.cli.options import SettingsCommand, takes_settings
from headcount.errors import SettingsError
from headcount.settings.deployment import Settings
from headcount.settings.environment import PREFIX
from headcount.settings.layers import Layers
from headcount.settings.model import Setting, settings_of

ALL = list(settings_of(Settings).values())
#: Values that are valid beside the defaults of all other settings.
VALID: dict[str, Any] = {
    "host": "0.0.0.0",
    "public_url": "https://headcount.example",
    "trusted_proxies": "10.0.0.0/8",
    "mqtt_origins": "https://page.example,http://127.0.0.1:8000",
    "embed_origins": "https://page.example",
    "oidc_issuer": "https://id.example",
    "peers": "one-node",
    "history": "s3://bucket/headcount",
    "retain": "fixes=6h,minutes=30d",
    "scale.mounts": "shared:/shared:ro",
    "proxy.unlimited": "10.0.0.0/8,fd00::/8",
    "bridge.from": "mqtts://broker.example",
    "scale.min_brokers": 2,
    "scale.min_workers": 2,
    "scale.rebalance_start": 1.5,
    "scale.rebalance_stop": 1.05,
}
#: Settings that are valid only together with another one.
TOGETHER: dict[str, dict[str, Any]] = {
    "tls_cert": {"tls_key": "server.key"},
    "tls_key": {"tls_cert": "server.crt"},
    "client_ca": {"tls": "on"},
    "bridge.cert": {"bridge.key": "bridge.key"},
    "bridge.key": {"bridge.cert": "bridge.crt"},
    "oidc_client_secret_file": {"oidc_issuer": "https://id.example"},
}


@click.command(cls=SettingsCommand)
@takes_settings(*(setting.key for setting in ALL))
@click.pass_context
def command(ctx: click.Context, /, settings: Settings) -> None:
    """Take every setting."""
    try:
        settings = ctx.meta[LAYERS].load()
    finally:
        ctx.obj.append(settings)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Start without configuration, in an empty folder."""
    for name in os.environ:
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.chdir(tmp_path)


def valid(setting: Setting) -> Any:
    """A valid value that is not the default."""
    if setting.key in VALID:
        return VALID[setting.key]
    if setting.choices:
        return next(choice for choice in reversed(setting.choices) if choice != setting.default)
    if setting.type is bool:
        return not setting.default
    if setting.type in (int, float):
        return setting.type(
            17
            if setting.default is None or setting.default + 1 > setting.declared.high
            else setting.default + 1
        )
    return "another"


def value_of(settings: Settings, setting: Setting) -> Any:
    """The value in the settings."""
    return getattr(getattr(settings, setting.section) if setting.section else settings, setting.field)


def run(*arguments: str) -> Settings:
    """The settings that a command receives."""
    found: list[Settings] = []
    result = CliRunner().invoke(command, arguments, obj=found, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return found[0]


def flag(setting: Setting, value: Any) -> list[str]:
    """The words of the command line that set it."""
    if setting.type is bool:
        return [setting.flag if value else f"--no-{setting.flag[2:]}"]
    return [setting.flag, str(value)]


def toml(values: dict[str, Any]) -> str:
    """A configuration file."""
    lines = []
    for key, value in values.items():
        shown = str(value).lower() if isinstance(value, bool) else repr(value)
        lines.append(f"{key} = {shown}")
    return "\n".join(lines)


@pytest.mark.parametrize("setting", ALL, ids=lambda setting: setting.key)
def test_each_setting_can_be_given_by_flag_variable_and_file(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value arrives from each of the three sources alike."""
    value, more = valid(setting), TOGETHER.get(setting.key, {})
    expected = setting.type(value)
    known = settings_of(Settings)
    words = [word for key, each in {setting.key: value, **more}.items() for word in flag(known[key], each)]
    assert value_of(run(*words), setting) == expected
    Path("headcount.toml").write_text(toml({setting.key: value, **more}))
    assert value_of(run(), setting) == expected
    Path("headcount.toml").unlink()
    for key, each in {setting.key: value, **more}.items():
        monkeypatch.setenv(known[key].variable, str(each))
    assert value_of(run(), setting) == expected


def test_names_are_unique() -> None:
    """No two settings share a flag or a variable."""
    for names in ([one.flag for one in ALL], [one.variable for one in ALL]):
        assert len(set(names)) == len(names)


def test_a_flag_wins_over_a_variable_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each source overrides the next one, and an empty variable counts as not set."""
    assert run().nats_port == 4222
    Path("headcount.toml").write_text("nats-port = 1\n[scale]\nmax_workers = 9\n")
    assert run().nats_port == 1
    assert run().scale.max_workers == 9
    monkeypatch.setenv("HEADCOUNT_NATS_PORT", "2")
    assert run().nats_port == 2
    assert run("--nats-port", "3").nats_port == 3
    monkeypatch.setenv("HEADCOUNT_NATS_PORT", "")
    assert run().nats_port == 1


def test_the_file_can_be_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """HEADCOUNT_CONFIG names another file than headcount.toml; a file that does not exist is an error."""
    other = tmp_path / "other.toml"
    other.write_text("partitions = 3")
    Path("headcount.toml").write_text("partitions = 2")
    assert run().partitions == 2
    monkeypatch.setenv("HEADCOUNT_CONFIG", str(other))
    assert run().partitions == 3
    assert Layers.read({}, Path("headcount.toml")).load().partitions == 2
    with pytest.raises(SettingsError, match=r"missing\.toml: cannot be read"):
        Layers.read({}, Path("missing.toml"))


@pytest.mark.parametrize(
    ("key", "text", "problem"),
    [
        ("nats_port", "abc", "'abc' is not valid; use a whole number, 1 to 65535"),
        ("nats_port", "70000", "70000 is not valid; use a whole number, 1 to 65535"),
        ("speed", "0", "0 is not valid; use a number, 0.01 to 10000"),
        ("speed", "nan", "nan is not valid; use a number, 0.01 to 10000"),
        ("open", "perhaps", "'perhaps' is not valid; use true or false"),
        ("tls", "maybe", "'maybe' is not valid; use one of auto, on, off, proxy"),
        ("host", "foo bar", "'foo bar' is not a valid host name or IP address"),
        ("core", "a:b:c", "'a:b:c' is not a valid list of addresses; use HOST:PORT, separated by commas"),
        ("scale.min_workers", "9", "9 is greater than max_workers, 4"),
        ("http_port", "4222", None),
    ],
)
def test_errors_name_the_source(key: str, text: str, problem: str | None) -> None:
    """An error names the flag, variable or line of the file, the value, and the valid values."""
    setting = settings_of(Settings)[key]
    problem = problem or "4222 is also the value of http_port; choose another port"
    with pytest.raises(SettingsError) as refused:
        Layers(variables={setting.variable: text}).load()
    blamed = "--nats-port" if key == "http_port" else setting.variable
    assert str(refused.value) == f"{blamed}: {problem}"
    if setting.type is not bool and key != "http_port":
        with pytest.raises(SettingsError) as refused:
            Layers(flags={key: text}).load()
        assert str(refused.value) == f"{setting.flag}: {problem}"
    if setting.type is str:
        with pytest.raises(SettingsError) as refused:
            Layers(file={key: text}, path=Path("my.toml")).load()
        assert str(refused.value) == f"my.toml: {key}: {problem}"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("mqtt_prt = 1", "headcount.toml: mqtt_prt: unknown setting; did you mean mqtt_port?"),
        (
            "[scale]\nmax_worker = 1",
            "headcount.toml: scale.max_worker: unknown setting; did you mean scale.max_workers?",
        ),
        ("xyz = 1", "headcount.toml: xyz: unknown setting; docs/reference/settings.md lists all settings"),
        ("nats_port = '1'", "headcount.toml: nats_port: '1' is not valid; use a whole number, 1 to 65535"),
        ("nats_port = true", "headcount.toml: nats_port: True is not valid; use a whole number, 1 to 65535"),
        ("open = 1", "headcount.toml: open: 1 is not valid; use true or false"),
        ("data = 'headcount.toml'", "headcount.toml: data: 'headcount.toml' is a file; use a folder"),
        ("site = '.'", "headcount.toml: site: '.' is a folder; use a file"),
        ("host = []", "headcount.toml: host: [] is not valid; use host name or IP address"),
        ("host", "headcount.toml: cannot be read: "),
    ],
)
def test_errors_of_the_file(line: str, problem: str) -> None:
    """Typos and values of the wrong type are caught, with the place in the file."""
    Path("headcount.toml").write_text(line)
    with pytest.raises(SettingsError) as refused:
        Layers.read({}).load()
    assert str(refused.value).startswith(problem)


def test_only_the_settings_of_a_command_are_read() -> None:
    """A value that a command does not take cannot break it."""
    layers = Layers(variables={"HEADCOUNT_SPEED": "fast", "HEADCOUNT_CORE": "elsewhere"})
    assert layers.load(["nats_port"]) == Settings()
    with pytest.raises(SettingsError, match="HEADCOUNT_SPEED"):
        layers.load()


def test_errors_raised_later_name_the_source_too() -> None:
    """A key in an error becomes the source of its value; the flag where it has its default."""
    error = SettingsError("data", "is not writable")
    assert str(Layers().named(error)) == "--data: is not writable"
    assert str(Layers(variables={"HEADCOUNT_DATA": "x"}).named(error)) == "HEADCOUNT_DATA: is not writable"
    assert Layers().named(SettingsError("--output", "exists")).name == "--output"


def test_help_shows_flag_variable_and_default() -> None:
    """Each setting stands in the help, in the section of its group."""
    shown = CliRunner().invoke(command, ["--help"], terminal_width=400).output
    for setting in ALL:
        assert f"[{setting.variable}; default: {setting.default_text}]" in shown
        assert setting.flag in shown
        assert f"\n{setting.declared.group}:\n" in shown

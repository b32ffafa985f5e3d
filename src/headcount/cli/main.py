"""The command `headcount`: its commands, the configuration file, and errors as one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from headcount import __version__
from headcount.cli import CONFIG, LAYERS
from headcount.cli.lazy import Entry, LazyGroup
from headcount.errors import HeadcountError, SettingsError

_COMMANDS = {
    "Run headcount": {
        "demo": Entry("up:demo", "Show a simulated university day, in time-lapse, on the live map."),
        "up": Entry("up:up", "Run everything on this machine: broker, counting, history, API and map."),
        "run": Entry("run:run", "Run one role in this process."),
        "scale": Entry("run:scale", "Add and remove brokers and workers as the load changes."),
        "site": Entry(
            "site:site", "Check and import site files; add, change and remove sites of a running deployment."
        ),
    },
    "Administer a deployment": {
        "device": Entry("device:device", "Manage devices: register, list, change, erase."),
        "decoder": Entry("decoder:decoder", "Write, list and try decoders of other formats."),
        "login-link": Entry("login_link:login_link", "Create a one-time link that signs a browser in."),
        "token": Entry("token:token", "Manage API tokens, and end sessions."),
        "ban": Entry("ban:ban", "Block devices or addresses for a while."),
        "ca": Entry("ca:ca", "Issue certificates for devices and servers."),
        "audit": Entry("audit:audit", "List or verify the audit log."),
        "doctor": Entry("doctor:doctor", "Check a data folder for damage."),
        "cost": Entry("cost:cost", "Estimate what it costs to keep data for 7, 30 and 365 days."),
        "retention": Entry(
            "retention:retention", "Report the age of stored data, and keep rows under legal holds."
        ),
    },
    "Analyse the history": {
        "export": Entry("export:export", "Write stored fixes to a file for other programs."),
        "import": Entry("import_:import_", "Store a recording in the history."),
        "history": Entry("export:history", "List the files of the stored history."),
    },
    "Send or replay movement": {
        "simulate": Entry("simulate:simulate", "Publish a simulated campus day over MQTT."),
        "publish": Entry("simulate:publish", "Publish a recording over MQTT as if it happened now."),
        "replay": Entry("replay:replay", "Count a recording offline."),
    },
    "Test headcount": {
        "prove": Entry("prove:prove", "Run a chaos test and compare the results with the counting rules."),
        "bench": Entry("bench:bench", "Run load tests of a system that scales."),
        "accuracy": Entry(
            "accuracy:accuracy", "Compare counts with the truth, and with the counts of other rules."
        ),
    },
}


class Main(LazyGroup):
    """The top of the command line; our own errors become one line and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except HeadcountError as error:
            _fail(ctx, error)
        except ExceptionGroup as group:
            ours, others = group.split(HeadcountError)
            if ours is None or others is not None:
                raise
            _fail(ctx, _first(ours))


def _fail(ctx: click.Context, error: BaseException) -> None:
    if isinstance(error, SettingsError) and LAYERS in ctx.meta:
        error = ctx.meta[LAYERS].named(error)
    click.echo(f"headcount: {error}", err=True)
    ctx.exit(2)


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


@click.group(
    cls=Main,
    sections=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
)
@click.version_option(__version__, prog_name="headcount")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Settings as TOML.  [HEADCOUNT_CONFIG; default: headcount.toml in this folder, if it exists]",
)
@click.pass_context
def main(ctx: click.Context, /, config: Path | None) -> None:
    """Count people and vehicles in every zone of a campus, exactly and in real time.

    \b
    headcount demo                      show a simulated campus
    headcount up --site campus.geojson  run everything on this machine
    headcount site import campus.osm    make a site file from OpenStreetMap data
    """
    ctx.meta[CONFIG] = config

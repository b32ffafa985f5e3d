"""`headcount decoder`: decoders of other formats."""

from __future__ import annotations

import asyncio
import binascii
import sys
import time
from pathlib import Path
from typing import BinaryIO

import click

from headcount.cli.output import as_json, moment, print_json, print_table
from headcount.decoders.formats import SHIPPED, ShippedFormat, decode_message
from headcount.decoders.new_project import create_project
from headcount.decoders.plugin_process import Item, PluginProcess
from headcount.decoders.plugins import Plugin, formats, installed
from headcount.decoding import Decoded, DecodedFix, DecodedStatus, DecodeError, Message


@click.group()
def decoder() -> None:
    """Write, list and try decoders of other formats.

    \b
    Examples:
      headcount decoder new acme-tracker
      headcount decoder list
      headcount decoder run --format owntracks location.json
    """


@decoder.command()
@click.argument("name")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write it here; the folder is new or empty.  [default: headcount-decoder-NAME]",
)
def new(name: str, folder: Path | None) -> None:
    """Create the project of a decoder.

    Writes a package that can be installed: one function, a test and a fixture. The function decodes uplinks of The Things
    Network until you replace it. NAME is the name of the format, in lower case letters, digits and hyphens. Prints the
    files.

    \b
    Examples:
      headcount decoder new acme-tracker
      headcount decoder new acme-tracker --folder decoders/acme
    """
    for path in create_project(name, folder):
        click.echo(path)


@decoder.command("list")
@as_json
def list_(as_json: bool) -> None:
    """List the formats.

    Prints the formats that headcount ships and those of installed packages, with their topics. A package that cannot be
    used is a line on standard error.

    \b
    Example:
      headcount decoder list
    """
    rows = [(format_.name, getattr(format_, "package", "headcount"), format_.topics) for format_ in formats()]
    if as_json:
        print_json([{"format": name, "package": package, "topics": topics} for name, package, topics in rows])
    else:
        print_table(
            ("format", "package", "topics"),
            ((name, package, ", ".join(topics)) for name, package, topics in rows),
        )
    for problem in installed()[1]:
        click.echo(f"headcount: {problem}", err=True)


@decoder.command()
@click.argument("files", nargs=-1, type=click.File("rb"), metavar="FILE...")
@click.option("--format", "name", help="Name of the format.  [default: that of the only installed package]")
@click.option("--topic", help="MQTT topic of the messages.  [default: the first of the format, with 1 for +]")
@click.option(
    "--hex", "is_hex", is_flag=True, help="The files have hexadecimal digits, not the bytes themselves."
)
@as_json
def run(
    files: tuple[BinaryIO, ...], name: str | None, topic: str | None, is_hex: bool, as_json: bool
) -> None:
    """Decode the payloads in files.

    Prints the results of each FILE, which is one message; `-` or none is the standard input. The decoder runs as it does
    in headcount: in a process of its own, with limits on time and memory. The exit code is 1 if a message is rejected.

    \b
    Examples:
      headcount decoder run --format acme-tracker tests/fixtures/uplink.json
      echo 01881a2b3c | headcount decoder run --format acme-tracker --hex
    """
    format_ = _chosen(name)
    message = Message(topic or format_.topics[0].replace("+", "1"), time.time())
    sources = files or (sys.stdin.buffer,)
    items = [(_payload(file.read(), is_hex=is_hex), message) for file in sources]
    results = _decoded(format_, items)
    for file, found in zip(sources, results, strict=True):
        label = f"{getattr(file, 'name', '-')}: " if len(sources) > 1 else ""
        for each in found:
            if as_json:
                print_json(_as_object(each), indented=False)
            else:
                click.echo(f"{label}{_as_text(each)}", err=isinstance(each, DecodeError))
    if any(isinstance(each, DecodeError) for found in results for each in found):
        sys.exit(1)


def _chosen(name: str | None) -> ShippedFormat | Plugin:
    plugins, problems = installed()
    if name is None and len(plugins) == 1:
        return plugins[0]
    for problem in problems:
        if problem.name == name:
            raise problem
    chosen: list[ShippedFormat | Plugin] = [*SHIPPED, *plugins]
    for format_ in chosen:
        if format_.name == name:
            return format_
    raise click.UsageError(f"--format: use one of {', '.join(format_.name for format_ in formats())}")


def _payload(content: bytes, *, is_hex: bool) -> bytes:
    if not is_hex:
        return content
    try:
        return binascii.unhexlify(b"".join(content.split()))
    except binascii.Error as error:
        raise click.UsageError(f"--hex: {error}") from error


def _decoded(format_: ShippedFormat | Plugin, items: list[Item]) -> list[list[Decoded]]:
    if isinstance(format_, ShippedFormat):
        return [decode_message(format_, payload, message) for payload, message in items]
    return asyncio.run(_decoded_by(format_, items))


async def _decoded_by(plugin: Plugin, items: list[Item]) -> list[list[Decoded]]:
    async with PluginProcess(plugin, output=None) as process:
        return await process.decode(items, float("inf"))


def _as_text(result: Decoded) -> str:
    match result:
        case DecodedFix():
            extra = {"acc": "m", "vel": "km/h", "cog": "°", "alt": "m", "batt": "%"}
            values = ((name, getattr(result, name), unit) for name, unit in extra.items())
            more = [f"{name} {value:g} {unit}" for name, value, unit in values if value is not None]
            parts = [f"{result.lat:.6f}, {result.lon:.6f}", *more, result.kind]
            return f"fix of {result.name} at {moment(result.t)}: {', '.join(parts)}"
        case DecodedStatus(name, online):
            return f"status of {name}: {'online' if online else 'offline'}"
        case DecodeError():
            return f"rejected ({result.label}): {result.problem or result.label}"
        case _:
            return f"ignored: {result.reason}"


def _as_object(result: Decoded) -> object:
    if isinstance(result, DecodeError):
        return {"type": "rejected", "label": result.label, "problem": result.problem}
    return result

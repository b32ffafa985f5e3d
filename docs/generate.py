"""Write the pages of the reference that are read off the code: `python docs/generate.py [--check | --openapi]`.

    reference/cli.md       every command's --help
    reference/settings.md  every declared setting, with its flag, variable and default
    reference/http.md      OpenAPI, and the problem documents

With `--check` nothing is written: it fails where a page on disk isn't what would be written.
With `--openapi` it prints the OpenAPI document.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from headcount.api.api_settings import ApiSettings
from headcount.api.app import create_app
from headcount.api.schemas.problems import TYPES
from headcount.cli.main import main
from headcount.messaging.connection import Endpoint
from headcount.settings.deployment import Settings
from headcount.settings.model import Setting, settings_of
from headcount.sites.files import bundled_site, load_site

FOLDER = Path(__file__).parent / "reference"
WIDTH = 100
NOTE = "<!-- Written by docs/generate.py: changes here are lost. -->"


def cli() -> str:
    """The page of the command line."""
    parts = [
        "# Command line",
        NOTE,
        (
            "What `headcount COMMAND --help` prints. Every error of headcount is one line on standard error "
            "that says what is wrong, where, and what to do; the exit code is then 2."
        ),
    ]
    context = click.Context(main, info_name="headcount", **main.context_settings)
    for name, command, inner in commands(main, context):
        parts += [f"## {name}", f"```text\n{command.get_help(inner).rstrip()}\n```"]
    return "\n\n".join(parts) + "\n"


def commands(
    command: click.Command, context: click.Context
) -> Iterator[tuple[str, click.Command, click.Context]]:
    """A command, and all below it, with their full names."""
    context.terminal_width = WIDTH
    # without the arguments of the groups above
    yield " ".join(word for word in context.command_path.split() if not word.isupper()), command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                yield from commands(inner, click.Context(inner, context, name))


def settings() -> str:
    """The page of settings."""
    parts = [
        "# Settings",
        NOTE,
        (
            "Each setting can be given in four ways. A flag on the command line wins over an environment "
            "variable, which wins over the configuration file, which wins over the default. An empty variable counts "
            "as not set."
        ),
        (
            "The configuration file is `headcount.toml` in the folder where headcount is started, or the one that "
            "`--config` or the variable `HEADCOUNT_CONFIG` names. It is TOML and holds the names below; an unknown "
            "name is an error, so that typos are caught:"
        ),
        (
            '```toml\nsite = "campus.geojson"\ndata = "/var/lib/headcount"\nhttp_port = 8080\n\n'
            '[scale]\nmax_workers = 8\n\n[proxy]\nbalance = "leastconn"\n```'
        ),
        (
            "`headcount run` accepts the flags of all settings. `headcount up` and `headcount demo` accept those "
            "that make sense on one machine; `headcount demo` has defaults of its own: free ports where those below "
            "are taken, `speed` 30, and the data folder `headcount-data/demo`. [Command line](cli.md) lists the flags of each "
            "command. The counting rules (hold times, margins, limits) are not settings: they are part of the "
            "[site file](site-file.md)."
        ),
    ]
    group = ""
    for setting in settings_of(Settings).values():
        if setting.declared.group != group:
            group = setting.declared.group
            parts.append(f"## {group}")
        parts += [f"### {setting.key}", setting.declared.help, table_of(setting)]
    parts += [
        "## Variables that are not settings",
        "`HEADCOUNT_CONFIG`: path of the configuration file, like `--config`.",
        (
            "`HEADCOUNT_SITE_FILE`, `HEADCOUNT_ADDRESS`, `HEADCOUNT_NAMES`, `HEADCOUNT_IMAGE`: read by "
            "`deploy/compose.yaml`, see [run a cluster](../guides/deploy.md)."
        ),
    ]
    return "\n\n".join(parts) + "\n"


def table_of(setting: Setting) -> str:
    """The names, default and values of a setting."""
    flags = f"`{setting.flag}`"
    if setting.type is bool:
        flags += f", `--no-{setting.flag[2:]}`"
    default = setting.default_text if setting.declared.default_text else f"`{setting.default_text}`"
    rows = [
        ("flag", flags),
        ("variable", f"`{setting.variable}`"),
        ("configuration file", f"`{setting.key}`"),
        ("default", default),
        ("values", setting.values),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {what} | {value} |" for what, value in rows)])


def openapi() -> dict[str, Any]:
    """The OpenAPI document of the API."""
    return create_app(ApiSettings(load_site(bundled_site("ul")), Endpoint((), "", ""), Path(), 16)).openapi()


def http() -> str:
    """The page of the HTTP interface."""
    api = openapi()
    parts = [
        "# HTTP",
        NOTE,
        api["info"]["description"].strip(),
        (
            "What anybody may read, pages of any origin may read (CORS); with a token they may read whatever "
            "that may. [People and programs](../guides/secure-access.md) has tokens, roles, logging in and limits."
        ),
        (
            "Beside the resources below: `GET /` is the live map, `GET /openapi.json` this page for programs, "
            "`GET /problems/{name}` the meaning of an error. Browsers log in by `GET /login`, come back to "
            "`GET /login/callback`, and log out by `POST /logout`."
        ),
    ]
    for path, item in api["paths"].items():
        for method, operation in item.items():
            parts += [f"## {method.upper()} {path}", *operation_of(operation)]
    parts += ["## Schemas", *shapes(api["components"]["schemas"])]
    parts += [
        "## Problems",
        (
            "Every error is a problem document (RFC 9457, `application/problem+json`). Its `type` is "
            "`/problems/` and one of the names below; these stay the same, while the texts may change."
        ),
    ]
    for problem in TYPES.values():
        parts += [f"### {problem.name}", f"Status {problem.status}. {problem.title}. {problem.meaning}"]
    return "\n\n".join(parts) + "\n"


def operation_of(operation: dict[str, Any]) -> list[str]:
    """The paragraphs about one method of one address."""
    parts = [operation["summary"] + ".", operation.get("description", "").strip()]
    parameters = operation.get("parameters", [])
    if parameters:
        rows = [
            f"| `{p['name']}` | {p['in']} | {type_of(p['schema'])} | {parameter_text(p)} |"
            for p in parameters
        ]
        parts.append("\n".join(["| parameter | in | type | |", "|---|---|---|---|", *rows]))
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"Body, `{media}`: {type_of(content['schema'])}.")
    rows = [
        f"| {status} | {cell(answer['description'])} |" for status, answer in operation["responses"].items()
    ]
    parts.append("\n".join(["| status | |", "|---|---|", *rows]))
    for status in ("200", "201"):
        parts += example(operation["responses"].get(status, {}))
    return parts


def parameter_text(parameter: dict[str, Any]) -> str:
    """A parameter's description, with its default and an example."""
    text = cell(parameter.get("description", ""))
    schema = parameter["schema"]
    if schema.get("default") is not None:
        text += f" Default: `{schema['default']}`."
    examples = parameter.get("examples") or schema.get("examples") or []
    if isinstance(examples, list) and examples:
        text += f" Example: `{examples[0]}`."
    return text


def example(answer: dict[str, Any]) -> list[str]:
    """The example of a good answer, as a block."""
    for media, content in answer.get("content", {}).items():
        shown = content.get("example") or next(
            (e["value"] for e in content.get("examples", {}).values()), None
        )
        if shown is not None:
            text = shown if isinstance(shown, str) else json.dumps(shown, indent=2, ensure_ascii=False)
            language = "json" if media.endswith("json") else "text"
            return [f"`{media}`:", f"```{language}\n{compact(text).strip()}\n```"]
    return []


def compact(text: str) -> str:
    """Indented JSON with its innermost lists and objects on one line each."""
    one_line = re.compile(r"([\[{])\s*([^\[\]{}]*?)\s*([\]}])")
    return one_line.sub(lambda m: m[1] + re.sub(r"\s*\n\s*", " ", m[2]) + m[3], text)


def shapes(schemas: dict[str, Any]) -> Iterator[str]:
    """A table for each shape that answers are made of."""
    for name, schema in sorted(schemas.items()):
        properties = schema.get("properties")
        if not properties:
            continue
        rows = [
            f"| `{key}` | {type_of(value)} | {cell(value.get('description', ''))} |"
            for key, value in properties.items()
        ]
        yield f"### {name}"
        if schema.get("description"):
            yield cell(schema["description"])
        yield "\n".join(["| field | type | |", "|---|---|---|", *rows])


def type_of(schema: dict[str, Any]) -> str:
    """A JSON schema in a word or two."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(type_of(part) for part in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array" and "items" in schema:
        return f"list of {type_of(schema['items'])}"
    return str(schema.get("type", "any"))


def cell(text: str) -> str:
    """A text as one line that may stand in a table."""
    return " ".join(text.split()).replace("|", "\\|")


PAGES = {"cli.md": cli, "settings.md": settings, "http.md": http}


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; fail where a page is not fresh.")
@click.option("--openapi", "print_openapi", is_flag=True, help="Print the OpenAPI document instead.")
def generate(check: bool, print_openapi: bool) -> None:
    """Write the generated pages of the reference, or check that they are fresh."""
    if print_openapi:
        click.echo(json.dumps(openapi()))
        return
    stale = []
    for name, page in PAGES.items():
        path, text = FOLDER / name, page().replace("\r\n", "\n")
        if check and (not path.exists() or path.read_text() != text):
            stale.append(str(path))
        elif not check:
            path.write_text(text)
    if stale:
        raise click.ClickException(f"not fresh: {', '.join(stale)}. Run {textwrap.shorten(__file__, 200)}")


if __name__ == "__main__":
    generate()

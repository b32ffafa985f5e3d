"""Write the pages of the reference that are read off the code: `python docs/generate.py [--check | --openapi]`.

    reference/cli.md       every command's --help
    reference/settings.md  every field of `Settings`, with its flag, variable and default
    reference/http.md      OpenAPI, and the problem documents

With `--check` nothing is written: it fails where a page on disk isn't what would be written.
With `--openapi` it prints the OpenAPI document.
"""

from __future__ import annotations

import dataclasses
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
from headcount.settings import Settings
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
            inner = command.commands[name]
            yield from commands(inner, click.Context(inner, context, name))


def settings() -> str:
    """The page of settings."""
    options = {parameter.name: parameter for parameter in main.commands["run"].params}
    parts = [
        "# Settings",
        NOTE,
        (
            "A flag wins over an environment variable, that over the configuration file, that over the default. "
            "The file is `headcount.toml` in the folder where headcount is started, or the one that `--config` "
            "or the variable `HEADCOUNT_CONFIG` names. It holds the names below:"
        ),
        '```toml\nsite = "campus.geojson"\ndata = "/var/lib/headcount"\nhttp_port = 8080\nopen = true\n```',
        (
            "An unknown name in the file is an error, so that a slip of the pen is noticed. `headcount demo` has "
            "defaults of its own: free ports where those below are taken, `speed` 30, and a data folder "
            "`headcount-data/demo`. What concerns counting (holds, margins, limits) is no setting: it stands in "
            "the [site file](site-file.md)."
        ),
    ]
    for field in dataclasses.fields(Settings):
        parts += [f"## {field.name}", *setting(field.name, options[field.name], field.default)]
    parts += [
        "## Only in the environment",
        "`HEADCOUNT_CONFIG`: the path of the configuration file, as `--config`.",
        (
            "`HEADCOUNT_LOG_LEVEL`: what the operator's log says: `DEBUG`, `INFO`, `WARNING` or `ERROR`. "
            "Without it `headcount up` and `headcount demo` say warnings, and each role on its own says more."
        ),
        (
            "`HEADCOUNT_PULSE`: a file that `headcount run` touches each second, for the health check of a "
            "container (`python -m headcount.runtime.health`). The image sets it; without it there is none."
        ),
        (
            "`HEADCOUNT_SITE_FILE`, `HEADCOUNT_ADDRESS`, `HEADCOUNT_NAMES`, `HEADCOUNT_IMAGE`: read by `deploy/compose.yaml`, see "
            "[run a cluster](../guides/deploy.md)."
        ),
    ]
    return "\n\n".join(parts) + "\n"


def setting(name: str, option: click.Parameter, default: object) -> list[str]:
    """The paragraphs about one setting."""
    if not isinstance(option, click.Option):
        raise TypeError(name)
    if name == "site":
        shown = "`site.geojson` in this folder"
    elif isinstance(option.show_default, str):
        shown = option.show_default
    else:
        shown = f"`{json.dumps(str(default) if name == 'data' else default)}`"
    rows = [
        ("flag", " / ".join(f"`{flag}`" for flag in (*option.opts, *option.secondary_opts))),
        ("variable", f"`{option.envvar}`"),
        ("in the file", f"`{name}`"),
        ("default", shown),
        ("values", values_of(option)),
    ]
    table = "\n".join(f"| {what} | {value} |" for what, value in rows)
    return [option.help or "", f"| | |\n|---|---|\n{table}"]


def values_of(option: click.Option) -> str:
    """What an option takes, in words."""
    kind = option.type
    if option.is_flag:
        return "on or off"
    if isinstance(kind, click.Choice):
        return ", ".join(f"`{choice}`" for choice in kind.choices)
    if isinstance(kind, click.IntRange):
        return f"{kind.min} to {kind.max}"
    if kind.name == "float":
        return {"drain_s": "0 to 3600", "requests_per_s": "0.1 to 1000000"}.get(
            str(option.name), "0.01 to 10000"
        )
    return "text" if kind.name == "text" else "a path"


def openapi() -> dict[str, Any]:
    """The OpenAPI document of the API."""
    return create_app(
        ApiSettings(load_site(bundled_site("ul")), "nats://127.0.0.1:4222", Path(), 16)
    ).openapi()


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
    parts += ["## Shapes", *shapes(api["components"]["schemas"])]
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

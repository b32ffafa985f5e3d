"""Commands and code in the pages are valid."""

from __future__ import annotations

import configparser
import json
import re
import shlex
from pathlib import Path

import click
import pytest

from headcount.cli.main import main
from headcount.counting.site_file import check_site
from headcount.settings.layers import Layers

from .pages import DOCS, PAGES, ROOT, blocks, commands, inline, name


def _parse(call: str) -> None:
    """Look up commands and options; values are not checked, because files need not exist."""
    command: click.Command = main
    arguments = shlex.split(call)[1:]
    context = click.Context(command, info_name="headcount")
    while True:
        _, rest, _ = command.make_parser(context).parse_args(args=list(arguments))
        if not isinstance(command, click.Group) or not rest:
            return
        inner = command.get_command(context, rest[0])
        if inner is None:
            raise click.UsageError(f"no command {rest[0]}")
        arguments = rest[1:]
        command, context = inner, click.Context(inner, context, rest[0])


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_exist(page: Path) -> None:
    """Each `headcount …` in a page is an existing command with existing options."""
    for call in commands(page, "headcount"):
        if call.split()[1:2] and call.split()[1].isupper():
            continue  # a placeholder
        try:
            _parse(call)
        except click.UsageError as error:
            pytest.fail(f"{call}: {error.format_message()}")


def test_commands_that_matter_are_shown() -> None:
    """The pages show the main commands."""
    shown = {" ".join(call.split()[:2]) for page in PAGES for call in commands(page, "headcount")}
    assert {
        "headcount up",
        "headcount demo",
        "headcount simulate",
        "headcount publish",
        "headcount replay",
    } <= shown


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_make_targets_exist(page: Path) -> None:
    """Each `make …` in a page names a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for call in commands(page, "make"):
        named = [word for word in shlex.split(call)[1:] if "=" not in word]
        assert set(named) <= targets, call


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_of_data_can_be_read(page: Path, tmp_path: Path) -> None:
    """Each block of JSON and TOML can be parsed, and a TOML block is a valid configuration file."""
    for block in blocks(page, "json"):
        json.loads(block)
    for block in blocks(page, "toml"):
        file = tmp_path / "headcount.toml"
        file.write_text(block)
        Layers.read({}, file)


def test_the_smallest_site_file_can_be_used() -> None:
    """The site file in the guide to drawing zones has no problem."""
    (block,) = blocks(DOCS / "guides" / "draw-zones.md", "json")
    assert check_site(json.loads(block), "the guide") == []


@pytest.mark.parametrize(
    ("page", "language", "example"),
    [
        ("start/first-application.md", "python", "counts.py"),
        ("start/first-application.md", "js", "counts.mjs"),
        ("guides/phones.md", "python", "publish.py"),
        ("guides/device-library.md", "python", "raspberry_pi.py"),
    ],
)
def test_shown_examples_are_those_that_are_tested(page: str, language: str, example: str) -> None:
    """A page shows an example exactly as in examples/, where the tests run it."""
    assert (ROOT / "examples" / example).read_text() in blocks(DOCS / page, language)


def test_examples_are_short() -> None:
    """An example has at most 25 lines; a whole phone has 50."""
    examples = [path for path in (ROOT / "examples").iterdir() if path.is_file()]
    assert examples
    long = {path.name for path in examples if len(path.read_text().splitlines()) > 25}
    assert long == {"obey.py"}
    assert len((ROOT / "examples" / "obey.py").read_text().splitlines()) <= 50


def test_the_codemap_has_every_module() -> None:
    """The codemap of ARCHITECTURE.md lists each module of the package exactly once, and no other."""
    source = ROOT / "src" / "headcount"
    modules = [
        path.relative_to(source).as_posix() for path in source.rglob("*.py") if path.name != "__init__.py"
    ]
    listed = re.findall(
        r"^\| `([a-z0-9_/]+\.py)` \| \S", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE
    )
    assert sorted(listed) == sorted(modules)


def test_modules_are_short() -> None:
    """No module has more than 400 lines."""
    lines = {path: len(path.read_text().splitlines()) for path in (ROOT / "src" / "headcount").rglob("*.py")}
    assert {path: n for path, n in lines.items() if n > 400} == {}


def test_pure_modules_are_held_to_it() -> None:
    """The modules that the codemap calls pure are those of the import contract on pure modules."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    packages = re.findall(r"^### (\w+)\n\n[^\n]*\bpure\.$", text, re.MULTILINE)
    modules = re.findall(r"^\| `([a-z0-9_/]+)\.py` \| .*; pure \|$", text, re.MULTILINE)
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter")
    held = contracts["importlinter:contract:pure"]["source_modules"].split()
    assert sorted(held) == sorted(f"headcount.{name.replace('/', '.')}" for name in (*packages, *modules))


def test_only_settings_reads_the_environment() -> None:
    """No package but settings reads the environment."""
    source = ROOT / "src" / "headcount"
    reading = {
        path.relative_to(source).parts[0]
        for path in source.rglob("*.py")
        if re.search(
            r"\bos\.(environb?|getenv|putenv)\b|from os import .*\b(environ|getenv)\b", path.read_text()
        )
    }
    assert reading == {"settings"}


def test_named_tests_are_there() -> None:
    """Each test file that a page names exists."""
    for page in PAGES:
        for text in inline(page):
            if re.fullmatch(r"tests/[\w/]+\.py", text):
                assert (ROOT / text).is_file(), f"{name(page)}: {text}"

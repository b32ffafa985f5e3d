"""One language in pages, texts and identifiers; one class for each name."""

from __future__ import annotations

import ast
import inspect
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from headcount import errors
from headcount.cli.main import main

from . import vocabulary
from .pages import PAGES, ROOT, name, plain

SOURCES = sorted((ROOT / "src" / "headcount").rglob("*.py"))
CODE = sorted([*SOURCES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "docs").glob("*.py")])
WEB = sorted([*(ROOT / "web").glob("src/*.ts"), *(ROOT / "packages").glob("*/src/*.ts")])

#: Phrases that are right where they stand: part of the path, the phrase, the reason.
ALLOWED = [
    ("docs/", r"door counters?", "hardware that counts people at doors"),
    ("docs/", r"doors?(?=; privacy| and stairs)", "real doors"),
    ("docs/guides/devices.md", r"gate 3", "a name that a user chose"),
    ("headcount/simulate/", r"gates?", "zones of the type gate"),
    ("tests/simulate/", r"gates?", "zones of the type gate"),
]


def _in_text(where: str, text: str) -> list[str]:
    for path, phrase, _ in ALLOWED:
        if path in where:
            text = re.sub(phrase, "…", text, flags=re.IGNORECASE)
    return [f"{where}: {problem}" for problem in vocabulary.in_text(text)]


def _fail_for(problems: list[str]) -> None:
    assert not problems, "\n".join(["", *problems])


@pytest.mark.parametrize("page", [name(page) for page in PAGES])
def test_pages(page: str) -> None:
    """No page has a banned word or a sentence without a subject outside of its code."""
    _fail_for(_in_text(page, plain(ROOT / page)))


def _help(command: click.Command, path: str) -> Iterator[tuple[str, str]]:
    for text in (command.help, command.short_help, command.epilog):
        yield path, text or ""
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            shown = parameter.show_default if isinstance(parameter.show_default, str) else ""
            yield f"{path} {parameter.opts[0]}", f"{parameter.help or ''} {shown}"
    if isinstance(command, click.Group):
        context = click.Context(command)
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            assert found is not None
            yield from _help(found, f"{path} {inner}")


def _package(path: Path) -> str:
    return "/".join(path.relative_to(ROOT).parent.parts[:3])


PACKAGES = sorted(set(map(_package, CODE)))


def _trees(paths: list[Path]) -> Iterator[tuple[str, ast.Module]]:
    for path in paths:
        yield name(path), ast.parse(path.read_text())


def _pieces(node: ast.AST) -> Iterator[str]:
    """The text of all strings in an expression; what is formatted in becomes `…`."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    else:
        for inner in ast.iter_child_nodes(node):
            yield from _pieces(inner)


#: The calls whose strings a user reads: our errors, click's, problem documents and log lines.
MESSAGE_CALLS = {kind for kind, _ in inspect.getmembers(errors, inspect.isclass)} | {
    *("UsageError", "ClickException", "BadParameter", "Problem", "echo", "confirm"),
    *("debug", "info", "warning", "error", "exception", "critical"),
}


def _texts_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Docstrings, and the strings in calls of `MESSAGE_CALLS`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node) or ""
            yield getattr(node, "lineno", 1), re.sub(r"``?[^`]+``?", "…", text)
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in MESSAGE_CALLS:
                for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
                    yield from ((node.lineno, text) for text in _pieces(argument))


def _comments(path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], re.sub(r"`[^`]+`", "…", token.string.lstrip("#: "))


@pytest.mark.parametrize("package", PACKAGES)
def test_texts(package: str) -> None:
    """No docstring, comment, error or log line of a package has a banned word or lacks a subject."""
    _fail_for(
        [
            problem
            for path in CODE
            if _package(path) == package
            for line, text in (*_texts_of(ast.parse(path.read_text())), *_comments(path))
            for problem in _in_text(f"{name(path)}:{line}", text)
        ]
    )


def test_comments_of_configuration() -> None:
    """No comment in the files of deployment and build has a banned word or lacks a subject."""
    files = [ROOT / "Makefile", ROOT / "Dockerfile", *(ROOT / "deploy").rglob("*.y*ml")]
    lines = [(path, line) for path in files for line in path.read_text().splitlines() if "#" in line]
    _fail_for([problem for path, line in lines for problem in _in_text(name(path), line.partition("#")[2])])


def test_help() -> None:
    """No help text has a banned word or lacks a subject."""
    _fail_for([problem for path, text in _help(main, "headcount") for problem in _in_text(path, text)])


def test_texts_of_the_map() -> None:
    """No text of the web pages has a banned word or lacks a subject."""
    texts = [(path, re.sub(r"<[^>]*>", " ", path.read_text())) for path in (ROOT / "web").glob("*.html")]
    for path in WEB:
        found = re.findall(r'"([^"\n]* [^"\n]*)"|`([^`\n]* [^`\n]*)`', path.read_text())
        texts += [(path, " ".join(each)) for each in found]
    _fail_for([problem for path, text in texts for problem in _in_text(name(path), text)])


def _identifiers(path: Path) -> Iterator[tuple[str, vocabulary.Kind]]:
    yield path.stem, "file"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            yield node.name, "class"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, "function"
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                for each in ast.walk(target):
                    if isinstance(each, ast.Name) and each.id.isupper():
                        yield each.id, "constant"


def _identifiers_of_the_map(path: Path) -> Iterator[tuple[str, vocabulary.Kind]]:
    yield path.name.partition(".")[0], "file"
    for word, found in re.findall(r"\b(class|interface|type|enum|function|const) (\w+)", path.read_text()):
        kinds: dict[str, vocabulary.Kind] = {"function": "function", "const": "constant"}
        yield found, kinds.get(word, "class")


@pytest.mark.parametrize("package", [*PACKAGES, "web/src"])
def test_identifiers(package: str) -> None:
    """No file, class, function or constant of a package is named by a banned word."""
    web = package == "web/src"
    paths = WEB if web else [path for path in CODE if _package(path) == package]
    _fail_for(
        [
            f"{name(path)}: {problem}"
            for path in paths
            for identifier, kind in sorted(set((_identifiers_of_the_map if web else _identifiers)(path)))
            for problem in vocabulary.in_name(identifier, kind)
        ]
    )


def test_class_names() -> None:
    """No two classes in src have the same name, private ones included."""
    places: dict[str, list[str]] = defaultdict(list)
    for path, tree in _trees(SOURCES):
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path}:{node.lineno}")
    _fail_for([f"class `{kind}`: {where}" for kind, where in sorted(places.items()) if len(where) > 1])


def test_the_list_of_exceptions_is_used() -> None:
    """Each phrase that is allowed occurs where it is allowed."""
    for path, phrase, _ in ALLOWED:
        pages = [page for page in (*PAGES, *CODE) if path in name(page)]
        assert any(re.search(phrase, page.read_text(), re.IGNORECASE) for page in pages), phrase

"""The installed decoders of other packages, found without importing them.

A package registers its function under the entry point group `headcount.decoders`. The module of the function has the
topics as a literal, which is read from its source:

    TOPICS = ["v3/+/devices/+/up"]

Every process that needs the topics (the NATS server's configuration, permissions, streams) reads them this way; only the
plug-in's own process imports the module.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from collections.abc import Container
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from headcount.decoders.formats import SHIPPED, Format, subjects_of
from headcount.errors import DecoderError
from headcount.messages.topics import FOREIGN_SUBJECTS

GROUP = "headcount.decoders"
#: The name of a format: part of aliases, of labels of metrics and of the name of a consumer.
NAME = re.compile(r"(?=.{1,31}$)[a-z][a-z0-9]*(-[a-z0-9]+)*")
MAX_TOPICS = 20
#: First levels of topics that are headcount's own, here or as subjects of the NATS server.
RESERVED = frozenset(
    [
        "headcount",
        "fix",
        "count",
        "event",
        "history",
        "ask",
        "metrics",
        "audit",
        "auth",
        "unit",
        "wake",
        "owntracks",
        "car-iotp",
        "mobile-iotp",
    ]
)
_FILTER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(/([A-Za-z0-9_-]+|\+))*")


@dataclass(frozen=True, slots=True)
class Plugin(Format):
    """A format of another package."""

    package: str  # with its version
    module: str
    function: str


@functools.cache
def installed() -> tuple[tuple[Plugin, ...], tuple[DecoderError, ...]]:
    """The installed plug-ins by name, and the problems of those that cannot be used."""
    plugins: dict[str, Plugin] = {}
    problems = []
    subjects = list(FOREIGN_SUBJECTS)
    for entry in sorted(entry_points(group=GROUP)):
        try:
            plugin = _plugin(entry, subjects, plugins)
        except DecoderError as error:
            problems.append(error)
            continue
        plugins[plugin.name] = plugin
        subjects += subjects_of(plugin.topics)
    return tuple(plugins.values()), tuple(problems)


def formats() -> tuple[Format, ...]:
    """All formats, shipped and installed."""
    return (*SHIPPED, *installed()[0])


def plugin_subjects() -> tuple[str, ...]:
    """The NATS subjects of installed formats."""
    return tuple(subject for plugin in installed()[0] for subject in subjects_of(plugin.topics))


def _plugin(entry: EntryPoint, taken: list[str], others: Container[str]) -> Plugin:
    if entry.name in others or entry.name in (format_.name for format_ in SHIPPED):
        raise DecoderError(entry.name, "another decoder has this name", "Rename it")
    if not NAME.fullmatch(entry.name):
        raise DecoderError(
            entry.name, "the name is not valid", "Use up to 31 lower case letters, digits and hyphens"
        )
    package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else ""
    topics = _topics(entry.name, entry.module)
    new: list[str] = []
    for topic in topics:
        if not _FILTER.fullmatch(topic) or topic.split("/")[0] in RESERVED:
            raise DecoderError(
                entry.name,
                f"the topic {topic!r} cannot be used",
                "The first level is a word that headcount does not use itself; other levels are + or have letters, digits, _ and -",
            )
        (subject,) = subjects_of([topic])
        if any(_overlap(subject, other) for other in (*taken, *new)):
            raise DecoderError(
                entry.name, f"the topic {topic!r} overlaps another one", "Use topics of its own"
            )
        new.append(subject)
    return Plugin(entry.name, topics, package, entry.module, entry.attr or "decode")


def _topics(name: str, module: str) -> tuple[str, ...]:
    """The literal `TOPICS` in the source of a module."""
    try:
        tree = ast.parse(_source(module).read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        raise DecoderError(
            name, f"the module {module} cannot be read: {error}", "Install it again"
        ) from error
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "TOPICS" for target in targets):
            try:
                found = ast.literal_eval(node.value)  # type: ignore[attr-defined]
            except ValueError:
                break
            if isinstance(found, list | tuple) and 0 < len(found) <= MAX_TOPICS:
                return tuple(map(str, found))
            break
    raise DecoderError(
        name, f"{module} has no literal list TOPICS with 1 to {MAX_TOPICS} topics", 'Add TOPICS = ["a/+/b"]'
    )


def _source(module: str) -> Path:
    """The file of a module, whose parents are not imported."""
    top, *below = module.split(".")
    spec = importlib.util.find_spec(top)  # of a module without a parent: not imported
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"there is no module {top}")
    if not below:
        return Path(spec.origin)
    path = Path(spec.origin).parent.joinpath(*below)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _overlap(one: str, other: str) -> bool:
    """Whether a subject can match both subjects with wildcards."""
    ours, theirs = one.split("."), other.split(".")
    return len(ours) == len(theirs) and all(
        a == b or "*" in (a, b) for a, b in zip(ours, theirs, strict=True)
    )

"""Facts in the pages that the code decides: roles, ports, variables, options, errors, files."""

from __future__ import annotations

import inspect
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from headcount import errors
from headcount.cli.main import main
from headcount.roles.up import WORKING_ROLES
from headcount.settings.deployment import Settings
from headcount.settings.model import settings_of

from .pages import DOCS, PAGES, ROOT, blocks, headings, inline, name, plain, prose

SOURCE = ROOT / "src" / "headcount"
#: Names in headings that no sentence of the same page has.
PROPER = {"Node.js", "API", "Android", "HTTP", "Kubernetes", "NATS", "STRIDE"}
#: The first part of a path in a page.
FOLDERS = ("src/", "tests/", "docs/", "deploy/", "examples/", "web/", "sites/", "requirements/", ".ci/")
#: Files that a user or a build creates.
MADE = {
    "deploy/.env",
    "deploy/k8s/base/secret",
    "deploy/k8s/base/site.geojson",
    "deploy/access/prometheus",
    "deploy/tls/clients.crt",
    "deploy/tls/server.crt",
    "deploy/tls/server.key",
    "src/headcount/web/",
}


def _commands(command: click.Command) -> Iterator[click.Command]:
    yield command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            assert found is not None
            yield from _commands(found)


def _options() -> list[click.Option]:
    return [
        parameter
        for command in _commands(main)
        for parameter in command.params
        if isinstance(parameter, click.Option)
    ]


def _roles() -> set[str]:
    run = main.get_command(click.Context(main), "run")
    assert run is not None
    (role,) = [parameter for parameter in run.params if isinstance(parameter, click.Argument)]
    assert isinstance(role.type, click.Choice)
    return set(role.type.choices)


def _first_cells(page: Path, section: str) -> list[str]:
    """The first column of the tables in a section, without markup."""
    text = page.read_text().split(f"\n{section}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
    return [row.replace("`", "") for row in rows[1:] if row.strip("- ")]


@pytest.mark.parametrize(
    ("page", "section", "others"),
    [
        ("ARCHITECTURE.md", "## Bird's-eye view", set()),
        ("docs/guides/deploy.md", "## Containers", {"setup"}),
    ],
)
def test_tables_of_roles_are_complete(page: str, section: str, others: set[str]) -> None:
    """A table of the roles lists each role that `headcount run` takes, and no other."""
    assert sorted(_first_cells(ROOT / page, section)) == sorted(_roles() | others)


def test_the_glossary_lists_the_roles() -> None:
    """The definition of a role names each role that `headcount run` takes."""
    (entry,) = re.findall(
        r"^- \*\*Role\*\* \(of a process\)(.*?)^- ",
        (DOCS / "reference" / "glossary.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
    assert set(re.findall(r"`(\w+)`", entry)) == _roles()


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "docs/guides/operate.md"])
def test_the_roles_of_one_machine_are_listed(page: str) -> None:
    """Where a page lists the roles that `headcount up` starts, it lists all of them."""
    (listed,) = re.findall(r"roles\s+((?:`\w+`,?\s+)+and\s+`\w+`)", (ROOT / page).read_text())
    assert re.findall(r"`(\w+)`", listed) == list(WORKING_ROLES)


@pytest.mark.parametrize("page", ["docs/guides/operate.md", "docs/guides/secure.md"])
def test_tables_of_ports_have_the_defaults(page: str) -> None:
    """A table row with a port's setting has its default, with TLS and without."""
    rows = re.findall(r"^\|.*\| `(\w+_port)` \|.*$", (ROOT / page).read_text(), re.MULTILINE)
    assert {"mqtt_port", "ws_port", "http_port"} <= set(rows)
    for row in re.findall(r"^\|.*`\w+_port`.*$", (ROOT / page).read_text(), re.MULTILINE):
        (setting,) = re.findall(r"`(\w+_port)`", row)
        default = settings_of(Settings)[setting].default_text
        assert re.findall(r"\b\d{4,5}\b", row) == re.findall(r"\d+", default), row


def test_defaults_of_the_scaler_are_documented() -> None:
    """The page on scaling has the defaults of the policy, the demand, the forecast and rebalancing."""
    scale = {key.removeprefix("scale."): setting.default for key, setting in settings_of(Settings).items()}
    page = " ".join((DOCS / "concepts" / "scaling.md").read_text().split())
    for text in (
        f"| {scale['tolerance']:.0%} |".replace("%", " %"),
        f"| {scale['down_window_s']:g} s |",
        f"| {scale['up_step']} in {scale['up_period_s']:g} s |",
        f"| {scale['down_step']} in {scale['down_period_s']:g} s |",
        f"| {scale['cooldown_s']:g} s |",
        f"| {scale['min_workers']}, {scale['max_workers']} |",
        f"| {scale['min_brokers']}, {scale['max_brokers']} |",
        f"lag / {scale['catch_up_s']:g} s",
        f"CPUs / {scale['worker_utilization']:g}",
        f"connections / {scale['broker_connections']}",
        f"messages per second / {scale['broker_messages']:.0f}",
        f"{scale['rebalance_start']:g} times the mean",
        f"stops at {scale['rebalance_stop']:g} times the mean",
        f"at most {scale['rebalance_per_s']:.0%} of their own".replace("%", " %"),
    ):
        assert text in page, text


def _variables() -> set[str]:
    """Every variable that the command line, the other code and the container stack read."""
    code = [*SOURCE.rglob("*.py"), *(ROOT / "deploy").rglob("*.yaml"), *(ROOT / "web" / "e2e").glob("*.mjs")]
    code += (ROOT / "examples").rglob("*.js*")
    found = set(re.findall(r"HEADCOUNT_[A-Z0-9_]+[A-Z0-9]", "\n".join(path.read_text() for path in code)))
    return found | {setting.variable for setting in settings_of(Settings).values()}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_variables_exist(page: Path) -> None:
    """Each variable HEADCOUNT_… in a page is read by something."""
    named = set(re.findall(r"HEADCOUNT_[A-Z0-9_]+[A-Z0-9](?![A-Z0-9_…])", page.read_text()))
    assert named - _variables() - {"HEADCOUNT_NO_SKIPS"} == set()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_metrics_exist(page: Path) -> None:
    """Each metric that a page names in inline code has its heading in metrics.md."""
    named = {text for text in inline(page) if re.fullmatch(r"headcount_[a-z_]+[a-z]", text)}
    assert named <= headings(DOCS / "reference" / "metrics.md")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_options_exist(page: Path) -> None:
    """Each `--option` that stands alone in a page belongs to a command of ours."""
    ours = {text for option in _options() for text in (*option.opts, *option.secondary_opts)}
    others = {
        "--scale",
        "--profile",
        "--alive",
        "--help",
        "--check",
        "--write",
    }  # of Compose, scripts and click
    named = {re.split(r"[\s=:]", text)[0] for text in inline(page) if text.startswith("--")}
    assert named - ours - others == set()


def _drawn(tree: str) -> dict[str, str]:
    """Each error of a drawn tree, and the one above it."""
    above, parents = {-1: ""}, {}
    for line in tree.splitlines():
        for found in re.findall(r"^(?:[│├└─ ]*)(\w+Error)\b", line):
            depth = line.index(found) // 4
            above[depth], parents[found] = found, above[depth - 1]
    return parents


def test_the_tree_of_errors() -> None:
    """The tree in errors.md has every error below the class that it derives from."""
    real = {
        kind.__name__: kind.__bases__[0].__name__ if kind is not errors.HeadcountError else ""
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if kind.__module__ == errors.__name__
    }
    (page,) = blocks(DOCS / "reference" / "errors.md", "text")
    assert _drawn(page) == real


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("start/demo.md", "Ctrl-C stops it."),
        ("start/demo.md", "devices need no account, and programs on this machine have full access"),
        ("start/own-campus.md", " is valid: "),
        ("guides/devices.md", "The secret is shown only here. Id and secret are the MQTT user and password."),
        ("guides/devices.md", "Devices registered: "),
        ("guides/devices.md", "nothing was imported"),
        ("guides/devices.md", "some lines are not valid"),
        ("guides/devices.md", "works once, until "),
        ("guides/operate.md", " without earlier state"),
        ("guides/operate.md", "worker         agrees"),
        ("guides/operate.md", "it is full"),
        ("guides/operate.md", "the NATS server can't store"),
        ("guides/operate.md", "another headcount uses it"),
        ("guides/operate.md", "the data folder holds a log with"),
        ("guides/operate.md", "or newer is needed"),
        ("guides/secure.md", "self-signed, so browsers warn; see docs/guides/secure.md"),
        ("concepts/privacy.md", "log of fixes"),
    ],
)
def test_shown_output_is_printed(page: str, text: str) -> None:
    """An output or error that a page quotes is in the source."""
    assert text in (DOCS / page).read_text()
    assert any(text in path.read_text() for path in SOURCE.rglob("*.py")), text


def _paths(page: Path) -> Iterator[str]:
    for text in [*inline(page), *(word for block in blocks(page, "sh") for word in block.split())]:
        if text.startswith(FOLDERS) and re.fullmatch(r"[\w./-]+", text):
            yield text


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_exist(page: Path) -> None:
    """Each path of the checkout that a page names is there."""
    places = (ROOT, SOURCE, page.parent)
    missing = {path for path in _paths(page) if not any((place / path).exists() for place in places)}
    assert missing - MADE == set()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_modules_exist(page: Path) -> None:
    """Each module of headcount that a page names is there."""
    text = page.read_text()
    dotted = {
        found.replace(".", "/") + ".py" for found in re.findall(r"python -m headcount\.([\w.]+\w)", text)
    }
    slashed = {each for each in inline(page) if re.fullmatch(r"[a-z0-9_]+(/[a-z0-9_]+)+\.py", each)}
    missing = {
        path
        for path in dotted | {each for each in slashed if not each.startswith(FOLDERS)}
        if not (SOURCE / path).is_file() and not (SOURCE / path.removesuffix(".py") / "__main__.py").is_file()
    }
    assert missing == set()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_shell_blocks_can_be_read(page: Path) -> None:
    """Each shell block is shell."""
    code = "\n".join(blocks(page, "sh"))
    read = subprocess.run(["bash", "-n"], input=code, capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_services_exist(page: Path) -> None:
    """Each service of the container stack that a shell block names is in compose.yaml."""
    stack = (ROOT / "deploy" / "compose.yaml").read_text()
    services = set(
        re.findall(r"^  ([a-z]+):", stack.split("\nservices:\n")[1].split("\nnetworks:\n")[0], re.MULTILINE)
    )
    code = "\n".join(blocks(page, "sh"))
    named = set(re.findall(r"--scale (\w+)=", code)) | set(re.findall(r"compose\S* .*\bexec (\w+)", code))
    for line in re.findall(r"^for service in (.*); do$", code, re.MULTILINE):
        named |= set(line.split())
    assert named <= services


def _is_generated(page: Path) -> bool:
    return "docs/generate.py" in page.read_text()[:300] and page.parent.name == "reference"


@pytest.mark.parametrize("page", [page for page in PAGES if not _is_generated(page)], ids=name)
def test_lines_are_short(page: Path) -> None:
    """Text is wrapped at 100 characters, and at 110 after a rename; tables and images may be wider."""
    long = [
        line
        for line in prose(page).splitlines()
        if len(line) > 110 and not line.lstrip().startswith(("|", "![", "<!--"))
    ]
    assert [line for line in long if " " in line.strip().lstrip("-* ")] == []


@pytest.mark.parametrize("page", [page for page in PAGES if not _is_generated(page)], ids=name)
def test_headings_are_in_sentence_case(page: Path) -> None:
    """Within a heading only those words have a capital that have one within a sentence, too."""
    text = re.sub(r"^#+ .*$", "", plain(page), flags=re.MULTILINE)
    names = set(re.findall(r"(?<=[a-z,] )([A-Z][\w-]*)", " ".join(text.split()))) | PROPER
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        words = re.sub(r"`[^`]*`|\(.*?\)|^\d{4} |^\d+\. ", "", heading)
        for part in re.split(r"[:.] ", words):
            capitals = {word.strip(",;:") for word in part.split()[1:] if word[0].isupper()}
            assert capitals <= names, heading

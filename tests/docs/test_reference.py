"""The reference is complete, and its generated pages are up to date."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest
from prometheus_client.metrics_core import Metric

from headcount import errors
from headcount.api.api_settings import ApiSettings
from headcount.api.app import create_app
from headcount.api.openapi import routes
from headcount.api.schemas.problems import TYPES
from headcount.broker import nats_config
from headcount.broker.agent import Agent, AgentSettings
from headcount.broker.unit_health import UnitStats
from headcount.cli.main import main
from headcount.counting import events, site_feature, site_file
from headcount.messages.fixes import VERDICTS, Fix
from headcount.messages.topics import (
    COUNT_TOPIC,
    EVENT_TOPIC,
    FIX_TOPIC,
    OWNTRACKS_SUBJECTS,
    SITE_TOPIC,
    STATUS_TOPIC,
)
from headcount.messaging.connection import Endpoint
from headcount.settings.deployment import Settings
from headcount.settings.model import settings_of
from headcount.sites.files import bundled_site, load_site

from .pages import DOCS, REFERENCE, ROOT, headings

SOURCE = ROOT / "src" / "headcount"


@pytest.fixture(scope="module")
def settings() -> ApiSettings:
    """Settings of an API without connections."""
    return ApiSettings(load_site(bundled_site("ul")), Endpoint((("127.0.0.1", 1),), "", ""), Path(), 16)


def _missing(names: set[str], page: Path) -> set[str]:
    return names - headings(page)


def test_generated_pages_are_fresh() -> None:
    """`docs/generate.py --check` finds no page that is out of date."""
    script = DOCS / "generate.py"
    answer = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


def test_each_setting_has_its_heading() -> None:
    """Every setting has a heading in settings.md."""
    assert not _missing(set(settings_of(Settings)), REFERENCE / "settings.md")


def test_each_variable_is_named() -> None:
    """Every variable HEADCOUNT_… in the source is in settings.md."""
    code = "\n".join(path.read_text() for path in SOURCE.rglob("*.py"))
    text = (REFERENCE / "settings.md").read_text()
    asked = set(re.findall(r'"(HEADCOUNT_[A-Z_]+[A-Z])"', code))
    assert asked
    assert {variable for variable in asked if f"`{variable}`" not in text} == set()


def _commands(command: click.Command | None, name: str) -> Iterator[str]:
    yield name
    if isinstance(command, click.Group):
        context = click.Context(command)
        for inner in command.list_commands(context):
            yield from _commands(command.get_command(context, inner), f"{name} {inner}")


def test_each_command_has_its_heading() -> None:
    """Every command and subcommand has a heading in cli.md."""
    assert not _missing(set(_commands(main, "headcount")), REFERENCE / "cli.md")


def test_each_error_has_its_heading() -> None:
    """Every class of errors.py has a heading in errors.md, and the page names its attributes."""
    classes = [
        kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__
    ]
    page = REFERENCE / "errors.md"
    assert not _missing({kind.__name__ for kind in classes}, page)
    text = page.read_text()
    attributes = {
        parameter
        for kind in classes
        if "__init__" in vars(kind)
        for parameter in list(inspect.signature(kind).parameters)
    }
    assert {attribute for attribute in attributes if f"`{attribute}`" not in text} == set()


def test_each_problem_has_its_heading() -> None:
    """Every type of problem document has a heading in http.md."""
    assert not _missing(set(TYPES), REFERENCE / "http.md")


def test_each_route_has_its_heading(settings: ApiSettings) -> None:
    """Every path of the API is in http.md."""
    text = (REFERENCE / "http.md").read_text()
    paths = create_app(settings).openapi()["paths"]
    described = {f"{method.upper()} {path}" for path, item in paths.items() for method in item}
    assert {each for each in described if f"## {each}\n" not in text} == set()
    hidden = {
        f"{method} {route.path}"
        for route in routes(create_app(settings))
        if route.path not in paths
        for method in route.methods or ()
    }
    assert hidden
    assert {each for each in hidden if f"`{each}`" not in text} == set()


def _broker_config() -> nats_config.BrokerConfig:
    return nats_config.BrokerConfig(Path(), "a password for tests only")


def test_each_metric_has_its_heading(settings: ApiSettings) -> None:
    """metrics.md has a heading for every metric of the API and of a broker unit, and no other."""
    registry = create_app(settings).state.headcount.metrics.registry
    unit = Agent(AgentSettings("b", _broker_config(), Endpoint((), "", ""), "127.0.0.1", 8081, 20.0))
    given: set[str] = set()
    for family in (*registry.collect(), *UnitStats(unit).collect()):
        assert isinstance(family, Metric)
        if not family.name.endswith("_created"):
            given.add(f"{family.name}_total" if family.type == "counter" else family.name)
    assert given == {heading for heading in headings(REFERENCE / "metrics.md") if heading != "Metrics"}


def test_each_topic_has_its_heading() -> None:
    """Every topic that a device may publish or subscribe to is in topics.md."""
    page = REFERENCE / "topics.md"
    named = headings(page)
    text = page.read_text()
    own = (FIX_TOPIC, STATUS_TOPIC, COUNT_TOPIC, EVENT_TOPIC, SITE_TOPIC)
    assert {topic for topic in own if f"`{topic}`" not in text} == set()
    for subject in (*nats_config.DEVICE_PUBLISH, *nats_config.DEVICE_SUBSCRIBE):
        parts = [part for part in subject.split(".") if part not in {"headcount", "*", ">", "event"}]
        if parts[0] == "fix" and subject.startswith("fix."):
            continue  # the same topics after mapping
        if subject in OWNTRACKS_SUBJECTS:
            assert f"`{parts[-1]}`" in text
            continue
        assert any(parts[-1] in heading.split() for heading in named), subject


def test_each_key_of_a_fix_is_named() -> None:
    """Every key of a fix's payload is in topics.md."""
    text = (REFERENCE / "topics.md").read_text()
    assert {f.name for f in msgspec.structs.fields(Fix) if f"`{f.name}`" not in text} == set()


def test_each_property_of_a_site_has_its_heading() -> None:
    """Every property that the reader of site files uses has a heading in site-file.md."""
    code = inspect.getsource(site_file) + inspect.getsource(site_feature)
    asked = set(re.findall(r'(?:feature\.(?:number|pair|text)|properties\.get)\("(\w+)"', code))
    assert {"hold_s", "type", "timezone", "fresh_s"} <= asked
    assert not _missing(asked, REFERENCE / "site-file.md")


def test_the_rules_name_all_verdicts_and_reasons() -> None:
    """Every verdict and every reason of an event is in the counting rules."""
    text = (DOCS / "concepts" / "counting-rules.md").read_text()
    assert {word for word in (*VERDICTS, *events.REASONS) if f"| `{word}` |" not in text} == set()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hold_s", site_file.HOLD_S),
        ("leave_margin_m", (site_file.LEAVE_MARGIN_M,)),
        ("leave_margin_acc", (site_file.LEAVE_MARGIN_ACC,)),
        ("max_accuracy_m", (site_file.MAX_ACCURACY_M,)),
        ("max_position_age_s", (site_file.MAX_POSITION_AGE_S,)),
        ("max_speed_mps", site_file.MAX_SPEED_MPS[:1]),
        ("fresh_s", site_file.FRESH_S),
        ("offline_grace_s", (site_file.OFFLINE_GRACE_S,)),
    ],
)
def test_defaults_of_a_site_are_documented(key: str, value: tuple[float, ...]) -> None:
    """The section of a property states the default in the code."""
    section = (REFERENCE / "site-file.md").read_text().split(f"## {key}\n")[1].split("\n## ")[0]
    for number in value:
        assert re.search(rf"\b{number:g}\b", section), section

"""Only headcount.settings reads the environment."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from headcount.settings.deployment import Settings
from headcount.settings.environment import HEARTBEAT_FILE
from headcount.settings.model import settings_of

SOURCE = Path(__file__).resolve().parents[2] / "src" / "headcount"
READERS = {"environ", "environb", "getenv", "getenvb"}


def uses(path: Path) -> Iterator[str]:
    """The places in a module that read the environment: names of `os`, and click's parameter `envvar`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in READERS:
            yield node.attr
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (name.name for name in node.names if name.name in READERS)
        elif isinstance(node, ast.keyword) and node.arg in {"envvar", "auto_envvar_prefix"}:
            yield node.arg


def test_no_other_package_reads_the_environment() -> None:
    """Outside of settings no module touches os.environ, nor lets click read a variable."""
    readers = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py") if any(uses(path))}
    assert readers == {"settings/environment.py"}


def test_the_health_check_knows_the_variable() -> None:
    """The health check reads the variable of the setting heartbeat_file without loading the settings."""
    assert settings_of(Settings)["heartbeat_file"].variable == HEARTBEAT_FILE
    program = (
        "import sys, headcount.runtime.health; "
        "print(*[name for name in ('dataclasses', 'click', 'asyncio') if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []

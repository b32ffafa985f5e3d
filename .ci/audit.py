"""Known vulnerabilities of the locked packages.

Exit code 1 if there are any. If the advisories can't be reached, for example on a network that reaches package
registries only, it prints that and succeeds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def python(lock: str) -> tuple[int, int, list[str]]:
    """Number of packages of a lock that were checked and skipped, and the vulnerabilities."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(ROOT / "requirements" / lock)]
    command += ["--disable-pip", "--no-deps", "--format", "json", "--progress-spinner", "off"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    try:
        packages = json.loads(run.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        return 0, 0, []
    found = [
        f"{each['name']} {each['version']}: {vulnerability['id']}"
        for each in packages
        for vulnerability in each.get("vulns", ())
    ]
    skipped = sum("skip_reason" in each for each in packages)
    return len(packages) - skipped, skipped, found


def npm(folder: str) -> tuple[bool, list[str]]:
    """Whether the lock of a folder could be checked, and the vulnerabilities of what is shipped."""
    command = ["npm", "audit", "--omit=dev", "--json"]
    run = subprocess.run(command, cwd=ROOT / folder, capture_output=True, text=True, check=False, timeout=300)
    try:
        vulnerabilities = json.loads(run.stdout)["vulnerabilities"]
    except (json.JSONDecodeError, KeyError):
        return False, []
    return True, [f"{folder}: {name}: {each['severity']}" for name, each in vulnerabilities.items()]


def main() -> int:
    """Check all locks and print the vulnerabilities."""
    found: list[str] = []
    for lock in ("image.txt", "dev.txt"):
        checked, skipped, vulnerabilities = python(lock)
        found += vulnerabilities
        print(
            f"requirements/{lock}: {checked} packages checked, {skipped} skipped, {len(vulnerabilities)} vulnerabilities"
        )
        if not checked:
            print("  the advisories can't be reached")
    answered, vulnerabilities = npm("web")
    found += vulnerabilities
    print(
        f"web: {len(vulnerabilities)} vulnerabilities" if answered else "web: the advisories can't be reached"
    )
    for each in found:
        print(f"  {each}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""Known weaknesses of the locked packages, as far as the advisories can be reached.

Exit code 1 when there is one. Where nobody answers (a network that reaches package registries only), it
says so: then nothing was learnt, which is no reason to fail.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def python(lock: str) -> tuple[int, int, list[str]]:
    """Packages of a lock that were looked up and that weren't, and what was found."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(ROOT / "requirements" / lock)]
    command += ["--disable-pip", "--no-deps", "--format", "json", "--progress-spinner", "off"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    try:
        packages = json.loads(run.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        return 0, 0, []
    found = [
        f"{each['name']} {each['version']}: {weakness['id']}"
        for each in packages
        for weakness in each.get("vulns", ())
    ]
    skipped = sum("skip_reason" in each for each in packages)
    return len(packages) - skipped, skipped, found


def npm(folder: str) -> tuple[bool, list[str]]:
    """Whether anybody answered for a folder's lock, and what was found in what we ship."""
    command = ["npm", "audit", "--omit=dev", "--json"]
    run = subprocess.run(command, cwd=ROOT / folder, capture_output=True, text=True, check=False, timeout=300)
    try:
        weaknesses = json.loads(run.stdout)["vulnerabilities"]
    except (json.JSONDecodeError, KeyError):
        return False, []
    return True, [f"{folder}: {name}: {each['severity']}" for name, each in weaknesses.items()]


def main() -> int:
    """Look everything up and say what was found."""
    found: list[str] = []
    for lock in ("image.txt", "dev.txt"):
        looked, skipped, weaknesses = python(lock)
        found += weaknesses
        print(
            f"requirements/{lock}: {looked} packages looked up, {skipped} not, {len(weaknesses)} weaknesses"
        )
        if not looked:
            print("  the advisories can't be reached from here: nothing was learnt")
    answered, weaknesses = npm("web")
    found += weaknesses
    print(f"web: {len(weaknesses)} weaknesses" if answered else "web: nobody answers: nothing was learnt")
    for each in found:
        print(f"  {each}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

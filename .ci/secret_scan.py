"""Whether something that looks like a secret has got into the repository since somebody last looked.

    python .ci/secret_scan.py            exit code 1 and the places, where there is something new
    python .ci/secret_scan.py --accept   what there is now has been looked at: write it into known-secrets.json

The finding is `detect-secrets`' work; here its findings are compared by file and hash, so that moved lines are
no news.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from detect_secrets.core.scan import scan_file
from detect_secrets.settings import default_settings

ROOT = Path(__file__).resolve().parents[1]
KNOWN = ROOT / ".ci" / "known-secrets.json"
#: Hashes of packages, pictures, and what was found before.
LEFT_OUT = ("requirements/", "package-lock.json", ".svg", ".png", ".geojson", "known-secrets.json")


def files() -> list[str]:
    """What git keeps."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607
    return [name for name in listed.stdout.splitlines() if not any(part in name for part in LEFT_OUT)]


def found() -> dict[str, dict[str, str]]:
    """File → hash → what it looks like and where."""
    findings: dict[str, dict[str, str]] = {}
    with default_settings():
        for name in files():
            for secret in scan_file(str(ROOT / name)):
                place = f"line {secret.line_number}: {secret.type}"
                findings.setdefault(name, {})[secret.secret_hash] = place
    return findings


def main() -> int:
    """Compare, or accept."""
    now = found()
    if "--accept" in sys.argv:
        KNOWN.write_text(json.dumps({name: sorted(now[name]) for name in sorted(now)}, indent=1) + "\n")
        return 0
    known: dict[str, list[str]] = json.loads(KNOWN.read_text())
    new = [
        f"{name}: {place}"
        for name, hashes in now.items()
        for hash_, place in hashes.items()
        if hash_ not in known.get(name, ())
    ]
    print(f"{sum(map(len, now.values()))} places that look like a secret, {len(new)} of them new")
    for each in new:
        print(f"  {each}")
    if new:
        print(
            "Take it out, and change it where it was real; an example is accepted by: python .ci/secret_scan.py --accept"
        )
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main())

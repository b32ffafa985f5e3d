"""Find possible secrets in the repository that nobody has reviewed yet.

    python .ci/secret_scan.py            list new findings; exit code 1 if there are any
    python .ci/secret_scan.py --accept   accept all current findings: write them into known-secrets.json

`detect-secrets` finds them. Findings are compared by file and hash, so that moved lines aren't new.
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
#: Package hashes, images, and the accepted findings.
EXCLUDED = ("requirements/", "package-lock.json", ".svg", ".png", ".geojson", "known-secrets.json")


def files() -> list[str]:
    """Tracked files that are scanned."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607
    return [name for name in listed.stdout.splitlines() if not any(part in name for part in EXCLUDED)]


def scan() -> dict[str, dict[str, str]]:
    """File → hash of the finding → its line and type."""
    findings: dict[str, dict[str, str]] = {}
    with default_settings():
        for name in files():
            for secret in scan_file(str(ROOT / name)):
                place = f"line {secret.line_number}: {secret.type}"
                findings.setdefault(name, {})[secret.secret_hash] = place
    return findings


def main() -> int:
    """Compare the findings with the accepted ones, or accept them."""
    now = scan()
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
    print(f"{sum(map(len, now.values()))} possible secrets, {len(new)} of them new")
    for each in new:
        print(f"  {each}")
    if new:
        print(
            "Remove it, and revoke it if it was real. To accept an example, run: python .ci/secret_scan.py --accept"
        )
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main())

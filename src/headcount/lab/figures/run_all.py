"""`make bench`: measure all figures of the documentation; `--write` updates the page."""

from __future__ import annotations

import argparse
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from headcount.lab.machine import machine

HERE = Path(__file__).parent
PAGE = HERE.parents[3] / "docs" / "reference" / "figures.md"
#: Section of the page → script and arguments.
BENCHES = {
    "Footprint": ["footprint"],
    "Engine": ["engine_cost", "--million"],
    "Messages to history rows": ["path_delay"],
    "Pipeline": ["pipeline_throughput", "--seconds", "3", "--repeat", "5"],
    "Snapshots": ["handover_time"],
    "History": ["history_speed"],
    "Connection rate": ["connection_rate"],
    "QoS 1": ["qos1_cost", "plain", "acked", "--kills", "3"],
}


def main() -> None:
    """Run the named benchmarks, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which: {', '.join(BENCHES)}; default all")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name} of the documentation")
    options = parser.parse_args()
    parts = []
    for name, (script, *arguments) in BENCHES.items():
        if options.names and name not in options.names:
            continue
        print(f"== {name} ==", flush=True)
        ran = subprocess.run(
            [sys.executable, "-m", f"headcount.lab.figures.{script}", *arguments],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        print(ran.stdout, flush=True)
        command = " ".join(["python", "-m", f"headcount.lab.figures.{script}", *arguments])
        parts.append(f"## {name}\n\n`{command}`\n\n```text\n{ran.stdout.strip()}\n```\n")
    if options.write:
        today = datetime.now(UTC).date().isoformat()
        head = (
            "# Figures\n\nMeasured by `make bench` on one machine on one day; compare ratios, not machines.\n\n"
            f"- machine: {machine()}\n- date: {today}\n\n"
        )
        PAGE.write_text(head + "\n".join(parts))


if __name__ == "__main__":
    main()

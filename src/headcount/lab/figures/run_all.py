"""`make bench`: measure the figures of the documentation; `--write` updates them in the page."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from headcount.lab.machine import machine

HERE = Path(__file__).parent
PAGE = HERE.parents[3] / "docs" / "reference" / "figures.md"
#: The end of an output that is Markdown itself.
END_OF_OUTPUT = "<!-- end of output -->"
#: Name → script and arguments.
BENCHES = {
    "Footprint": ["footprint"],
    "Live cost": ["live_cost"],
    "Engine": ["engine_cost", "--million"],
    "Overlapping zones": ["overlap_cost"],
    "Replay": ["replay_speed"],
    "Messages to history rows": ["path_delay"],
    "Pipeline": ["pipeline_throughput", "--seconds", "3", "--repeat", "5"],
    "Snapshots": ["handover_time"],
    "History": ["history", "--devices", "250", "--hours", "6"],
    "Layout of the history": ["history_layout"],
    "Connection rate": ["connection_rate"],
    "QoS 1": ["qos1_cost", "plain", "acked", "--kills", "3"],
}


def main() -> None:
    """Run the named benchmarks, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which: {', '.join(BENCHES)}; default all")
    parser.add_argument("--write", action="store_true", help=f"update {PAGE.name} of the documentation")
    options = parser.parse_args()
    results = {}
    for name in options.names or BENCHES:
        script, *arguments = BENCHES[name]
        command = ["-m", f"headcount.lab.figures.{script}", *arguments]
        print(f"== {name} ==", flush=True)
        finished = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True, check=True)
        print(finished.stdout, flush=True)
        results[" ".join(["python", *command])] = finished.stdout.strip()
    if options.write:
        PAGE.write_text(filled(PAGE.read_text(), results, machine(), datetime.now(UTC).date().isoformat()))


def filled(page: str, results: Mapping[str, str], machine_: str, date: str) -> str:
    """The page with new results: each replaces the block of code, or the marked output, below its command."""
    for command, output in results.items():
        for begin, end in (("```text\n", "```"), ("Load average before:", END_OF_OUTPUT)):
            before, start, after = page.partition(f"`{command}`\n\n{begin}")
            if after:
                head = start.removesuffix(begin) + (begin if begin.startswith("```") else "")
                page = f"{before}{head}{output}\n{after[after.index(end) :]}"
    lines = {"- machine:": machine_, "- date:": date}
    for name, value in lines.items():
        page = re.sub(rf"^{name} .*$", f"{name} {value}", page, flags=re.MULTILINE)
    return page


if __name__ == "__main__":
    main()

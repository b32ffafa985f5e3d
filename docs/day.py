"""Put measured figures into the pages: `python docs/day.py [--day FOLDER] [--balance FILE]`.

headcount bench day --out FOLDER           reference/day.md, guides/size.md, images/day.svg
headcount bench balance > FILE             reference/day.md
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

DOCS = Path(__file__).parent
DAY, SIZE = DOCS / "reference" / "day.md", DOCS / "guides" / "size.md"


def fill(page: Path, name: str, text: str) -> None:
    """Replace the code block after the comment `<!-- name: … -->`."""
    block = re.compile(rf"(<!-- {name}: [^\n]*-->\n```text\n).*?(^```$)", re.DOTALL | re.MULTILINE)
    page.write_text(
        block.sub(lambda match: f"{match[1]}{text.strip(chr(10))}\n{match[2]}", page.read_text(), count=1)
    )


def main() -> None:
    """Update the pages for which results are given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--day", type=Path)
    parser.add_argument("--balance", type=Path)
    options = parser.parse_args()
    if options.day:
        text = (options.day / "day.txt").read_text()
        head, *middle, cost = text.strip().split("\n\n")
        fill(DAY, "day", "\n\n".join([head, *middle]))
        fill(SIZE, "cost", f"{head}\n\n{cost}")
        shutil.copy(options.day / "day.svg", DOCS / "images" / "day.svg")
    if options.balance:
        fill(DAY, "balance", options.balance.read_text())


if __name__ == "__main__":
    main()

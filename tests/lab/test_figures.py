"""The page of figures and `make bench`."""

from __future__ import annotations

import re

from headcount.lab.figures.run_all import BENCHES, PAGE, filled


def test_every_benchmark_has_its_block_in_the_page() -> None:
    """The page has the command of each benchmark, with a block for its output."""
    page = PAGE.read_text()
    for script, *arguments in BENCHES.values():
        command = " ".join(["python -m", f"headcount.lab.figures.{script}", *arguments])
        assert re.search(rf"`{re.escape(command)}`\n\n(```text|Load average before:)", page), command


def test_new_results_replace_old_ones_and_keep_the_text() -> None:
    """Only the block below the command, the machine and the date change."""
    page = "- machine: old\n- date: old\n\n`a b`\n\n```text\n1\n```\n\nText.\n\n`c`\n\n```text\n2\n```\n"
    assert filled(page, {"a b": r"\1"}, "new", "today") == (
        "- machine: new\n- date: today\n\n`a b`\n\n```text\n\\1\n```\n\nText.\n\n`c`\n\n```text\n2\n```\n"
    )


def test_marked_output_is_replaced() -> None:
    """Output that is Markdown itself is replaced up to its mark, again and again."""
    page = "`a b`\n\nLoad average before: 1\n\n| old |\n<!-- end of output -->\n\nText.\n"
    for output in ("Load average before: 2\n\n| new |", "Load average before: 3"):
        page = filled(page, {"a b": output}, "new", "today")
        assert page == f"`a b`\n\n{output}\n<!-- end of output -->\n\nText.\n"

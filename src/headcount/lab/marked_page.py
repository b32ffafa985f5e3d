"""Pages of the documentation with generated parts: `<!-- TOPIC: NAME -->`, the part, `<!-- end -->`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from headcount.errors import HeadcountError

END = "<!-- end -->"


def filled(page: str, topic: str, parts: Mapping[str, str]) -> str:
    """The page with new parts.

    Raises:
        HeadcountError: the page lacks the marks of a part.
    """
    for name, text in parts.items():
        before, mark, after = page.partition(f"<!-- {topic}: {name} -->\n")
        _, end, after = after.partition(END)
        if not mark or not end:
            raise HeadcountError(f"the page lacks the marks of the part {topic}: {name}")
        page = f"{before}{mark}\n{text}\n\n{end}{after}"
    return page


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

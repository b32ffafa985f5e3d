"""The pages of the documentation: headings, words and code blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *DOCS.rglob("*.md"),
        *ROOT.glob("deploy/**/*.md"),
        *ROOT.glob("examples/*/*.md"),
        *ROOT.glob("packages/*/*.md"),
        ROOT / "web" / "README.md",
    ]
)

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")


def name(page: Path) -> str:
    """A page's path from the top of the checkout."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of these languages."""
    return [code for language, code in _FENCE.findall(page.read_text()) if language in languages]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def plain(page: Path) -> str:
    """A page's words: without code, addresses and markup, each paragraph and list item on one line."""
    text = re.sub(r"<!--.*?-->", "", _INLINE.sub("`…`", prose(page)), flags=re.DOTALL)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return re.sub(r"(?<=\S)\n(?! *(?:\n|[-*|#>]|\d+\.))\s*", " ", text)


def inline(page: Path) -> list[str]:
    """The inline code of a page."""
    return _INLINE.findall(prose(page))


def headings(page: Path) -> set[str]:
    """The texts of all headings."""
    return {
        line.lstrip("#").strip().replace("`", "")
        for line in prose(page).splitlines()
        if re.match(r"#{1,6} ", line)
    }


def anchors(page: Path) -> set[str]:
    """The anchors of a page, by GitHub's rule; for our headings mkdocs' rule is the same."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(page)}


def commands(page: Path, program: str) -> Iterator[str]:
    """The calls of a program in shell blocks and inline code, without pipes and redirections."""
    lines = [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
    for line in (*lines, *inline(page)):
        call = re.split(r"\s[>|#]|&&|;| and then ", line.strip())[0].strip().removeprefix(".venv/bin/")
        if call == program or call.startswith(f"{program} "):
            yield call

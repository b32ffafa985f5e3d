"""Links have targets, the site builds, decision records are numbered."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .pages import DOCS, PAGES, ROOT, anchors, name, prose

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    """Each link within the checkout has an existing file and heading as its target."""
    broken = []
    for link in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_pages_of_the_site_stay_in_it() -> None:
    """No page of docs/ links to a file outside of docs/, which is not part of the site."""
    for page in DOCS.rglob("*.md"):
        for link in _LINK.findall(prose(page)):
            if not re.match(r"[a-z]+:|#", link):
                assert (page.parent / link.partition("#")[0]).resolve().is_relative_to(DOCS), (
                    f"{name(page)}: {link}"
                )


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Mkdocs builds the site in strict mode: links, anchors, no page left out."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "site" / "index.html").is_file()


def test_decisions_are_numbered_without_gap() -> None:
    """Decision records are 0001, 0002, …, each with its number in the title and its four parts."""
    records = sorted((DOCS / "decisions").glob("*.md"))
    assert [record.name[:4] for record in records] == [f"{i:04}" for i in range(1, len(records) + 1)]
    for record in records:
        text = record.read_text()
        assert text.startswith(f"# {record.name[:4]} "), record.name
        for part in ("Status: ", "## Context", "## Decision", "## Consequences"):
            assert part in text, f"{record.name}: {part}"


def test_the_menu_has_every_page() -> None:
    """The site's menu lists each page of docs/ once, and decision records in their order."""
    listed = re.findall(
        r"^ +- (?:[^:\n]+: )?([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE
    )
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))
    records = [page for page in listed if page.startswith("decisions/")]
    assert records == sorted(records)


def test_the_picture_is_small() -> None:
    """The README's picture of the map is a PNG below 300 kB."""
    picture = DOCS / "images" / "map.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 300_000


def test_the_readme_begins_with_what_matters() -> None:
    """Name, sentence, picture, first command and first response are in the first 30 lines of the README."""
    first = (ROOT / "README.md").read_text().splitlines()[:30]
    assert first[0] == "# headcount"
    assert any(line.startswith("![") for line in first)
    assert any(line.startswith("make demo") for line in first)
    assert any(line.startswith("```json") for line in first)

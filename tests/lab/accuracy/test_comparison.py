"""A quick comparison: known true counts, tables, figures, pages and the command."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from headcount.cli.main import main
from headcount.errors import HeadcountError
from headcount.lab.accuracy import tables
from headcount.lab.accuracy.accuracy_page import IMAGES, PAGE, TABLES, parts, report, write_pages
from headcount.lab.accuracy.comparison import MARGINS, OURS, RULES, compare
from headcount.lab.accuracy.error_model import PRESETS, REPORTED
from headcount.lab.accuracy.results import ALL_ZONES, CAR_PARKS, AccuracyPlan, AccuracyResults
from headcount.lab.accuracy.sized_site import EACH, SIZES_M2, size_classes, sized_site
from headcount.lab.accuracy.zone_geometry import WHOLE_SITE
from headcount.lab.marked_page import filled
from headcount.sites.files import bundled_site, load_site

DOCS = Path(__file__).parents[3] / "docs"
SITE = load_site(bundled_site("ul"))


@pytest.fixture(scope="module")
def results() -> AccuracyResults:
    """A quick comparison."""
    shares = []
    found = compare(AccuracyPlan(SITE, 100, 0.25, 1, 5), lambda _text, share: shares.append(share))
    assert 0 <= min(shares) <= max(shares) <= 1
    return found


def test_every_rule_is_compared_with_the_same_truth(results: AccuracyResults) -> None:
    """All rules have the same true counts; on the site they are about the people of the simulation."""
    truths = [
        results.campus.counts[preset, report, rule][0].truth
        for preset in PRESETS
        for report in REPORTED
        for rule in RULES
    ]
    assert all(np.array_equal(truth, truths[0]) for truth in truths)
    on_site = results.campus.count_errors("open sky", OURS, WHOLE_SITE).truth
    assert 50 < on_site < 130
    assert results.campus.count_errors("open sky", OURS, CAR_PARKS).truth > 0


def test_errors_are_plausible(results: AccuracyResults) -> None:
    """Counts are better under open sky than indoors, and exact for the whole site but for a few devices."""
    for rule in RULES:
        open_sky = results.campus.count_errors("open sky", rule)
        assert open_sky.mae <= results.campus.count_errors("indoor", rule).mae
        assert abs(open_sky.bias) <= open_sky.mae
    assert results.campus.count_errors("open sky", OURS, WHOLE_SITE).mae < 3


def test_margins_matter_only_with_an_accuracy(results: AccuracyResults) -> None:
    """Where `acc` is missing, the factor has no effect; the default is among the factors."""
    missing = {results.campus.margin_errors("open sky", "missing", margin).mae for margin in MARGINS}
    assert len(missing) == 1
    assert SITE.leave_margin_acc in MARGINS
    default = results.campus.margin_errors("campus", "honest", SITE.leave_margin_acc)
    assert default == results.campus.count_errors("campus", OURS)


def test_bounds_contain_the_count(results: AccuracyResults) -> None:
    """Low is at most the count and high at least, at every instant."""
    for (preset, condition), samples in results.campus.bounds.items():
        if condition == "honest":
            for bound, count in zip(samples, results.campus.counts[preset, "honest", OURS], strict=True):
                assert (bound.low <= count.counts).all()
                assert (bound.high >= count.counts).all()


def test_same_seed_same_counts(results: AccuracyResults) -> None:
    """The seed determines every number but the cost."""
    again = compare(results.plan, lambda _text, _share: None)
    for key, samples in results.campus.counts.items():
        assert np.array_equal(samples[0].counts, again.campus.counts[key][0].counts)
    assert tables.by_size(results) == tables.by_size(again)


def test_buildings_have_their_sizes() -> None:
    """The site of sizes has four buildings of each size, within a hundredth."""
    site = sized_site(1)
    classes = size_classes(site)
    for area_m2, chosen in zip(SIZES_M2, classes.values(), strict=False):
        areas = [site.zones[zone].plane.area for zone in chosen.zones]
        assert areas == pytest.approx([area_m2] * EACH, rel=0.01)
    assert len(classes[ALL_ZONES].zones) == len(site.zones) - 1


def test_report_and_pages(results: AccuracyResults, tmp_path: Path) -> None:
    """The report has each part; the pages get machine, date, seed, tables and figures, again and again."""
    text = report(results, "a machine", "2026-01-02")
    assert "seed: 5" in text
    assert all(rule in text for rule in RULES)
    for folder in ("concepts", "reference", "images"):
        (tmp_path / folder).mkdir()
    (tmp_path / PAGE).write_text((DOCS / PAGE).read_text())
    for date in ("2026-01-02", "2026-01-03"):
        written = write_pages(tmp_path, results, "a machine", date)
        assert [path.relative_to(tmp_path) for path in written] == [PAGE, TABLES, *IMAGES]
        for page in (PAGE, TABLES):
            content = (tmp_path / page).read_text()
            assert "- machine: a machine" in content
            assert f"- date: {date}\n- seed: 5," in content
    for image in IMAGES:
        assert (tmp_path / image).read_text().startswith("<svg")


def test_marks_are_required() -> None:
    """A page without the marks of a part is refused."""
    with pytest.raises(HeadcountError, match="sizes"):
        filled("# Page\n", "accuracy", {"sizes": "|"})


@pytest.mark.parametrize("page", [PAGE, TABLES])
def test_the_committed_page_states_its_run(page: Path) -> None:
    """The committed page has the machine, the date and the seed of its run."""
    content = (DOCS / page).read_text()
    assert re.search(
        r"^- machine: .*\n- date: 20\d\d-\d\d-\d\d\n- seed: \d+, \d+ runs? of", content, re.MULTILINE
    )


def test_the_committed_page_has_every_part(results: AccuracyResults) -> None:
    """The committed page has each part, with one row for each rule, and links its figures."""
    content = (DOCS / PAGE).read_text()
    for name in parts(results, "", ""):
        assert content.count(f"<!-- accuracy: {name} -->") == 1
    assert all(rule in content for rule in RULES)
    for image in IMAGES:
        assert f"(../{image.as_posix()})" in content
        assert (DOCS / image).exists()


def test_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command prints the report; with --write outside of a checkout it is an error."""
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    answer = runner.invoke(main, ["accuracy", "--quick", "--seed", "3", "--quiet"])
    assert answer.exit_code == 0, answer.output
    assert "== rules ==" in answer.output
    assert "- seed: 3, 1 run of 0.25 hours" in answer.output
    answer = runner.invoke(main, ["accuracy", "--quick", "--write", "--quiet"])
    assert answer.exit_code == 2
    assert "docs/concepts/accuracy.md does not exist" in answer.output

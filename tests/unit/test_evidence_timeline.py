"""The time line and a window's page: what happened is drawn, told in words, and tells of no single patient."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape

import pytest

from evidence import timeline, window
from evidence.timeline import Mark, count

MARKS = [
    Mark(datetime(2026, 3, 9, 12, tzinfo=UTC), "toy@2 promoted: better on the same patients"),
    Mark(datetime(2026, 2, 27, tzinfo=UTC), "toy@1 promoted: every gate passed"),
    Mark(datetime(2026, 3, 9, 11, tzinfo=UTC), "toy retraining, begun: AUROC <0.7 in windows 3 and 4"),
]


@pytest.fixture
def page(windows_shown):
    return timeline.html("toy: time line", windows_shown, MARKS, ["The data are replayed."])


def section(page, title):
    """What stands under a heading, up to the next one."""
    found = re.search(rf"<h[23][^>]*>{re.escape(title)}</h[23]>(.*?)<h[23]", page, re.DOTALL)
    assert found, title
    return found[1]


def rows(page, caption):
    """The cells of a table, a list a row."""
    table = re.search(rf"<caption>{re.escape(caption)}.*?</table>", page, re.DOTALL)
    assert table, caption
    body = table[0].partition("<tbody>")[2]
    return [
        [unescape(re.sub("<[^>]+>", "", cell)) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
        for row in re.findall(r"<tr>.*?</tr>", body)
    ]


def test_the_estimate_stands_beside_what_came_true_with_its_error(page):
    told = rows(page, "AUROC, estimated and realized: the numbers")

    assert told[0] == ["@1 · 1", "0.860 (0.810 to 0.910)", "0.870 (0.830 to 0.910)", "0.010"]
    assert told[2] == ["@1 · 3", "0.660 (0.610 to 0.710)", "0.870 (0.830 to 0.910)", "0.210"]
    assert told[5] == ["@2 · 2", "–", "0.870 (0.830 to 0.910)", "–"], "no outcome is no error"
    said = section(page, "Performance")
    assert "calibrated for these patients" in said
    assert "of version 2: in 1 of 1 windows" in said and "5 windows are needed to trust it" in said


def test_what_drifts_is_named_and_counted_among_the_features(page):
    told = rows(page, "Features that drift: the numbers")

    assert told[1] == ["@1 · 2", "0.0 %", "none"]
    assert told[3] == ["@1 · 4", "50.0 %", "age_years"]


def test_mean_risk_and_alerts_are_told_for_each_operating_point(page):
    assert rows(page, "Mean risk and alerts: the numbers")[0] == ["@1 · 1", "50.0 %", "80.0 %", "30.0 %"]


def test_the_windows_in_which_the_cusum_crossed_its_limit_are_named(page):
    assert "It crossed its limit in @1 · 3; @1 · 4." in section(page, "CUSUM of observed against expected")


def test_marks_are_lettered_in_order_of_time_and_stand_between_the_windows(page):
    told = rows(page, "Marks of the figures above")

    assert [row[0] for row in told] == ["A", "B", "C"]
    assert [row[2].partition(":")[0] for row in told] == ["toy@1 promoted", "toy retraining, begun", "toy@2 promoted"]
    drawing = section(page, "Observed / expected events")
    assert ">A</text>" in drawing and ">B–C</text>" in drawing


def test_versions_are_not_joined_by_a_line(page):
    """Four windows of one version and the only one of the other with outcomes."""
    drawing = section(page, "Calibration slope")

    (line,) = [
        points.split()
        for points in re.findall(r'<polyline class="line" points="([^"]+)"', drawing)
        if points.count(" ") > 1
    ]
    assert len(line) == 4


def test_a_number_under_ten_is_not_told(page, windows_shown):
    newest = rows(page, "Every window")[0]

    assert newest[0] == "@2 · 2"
    assert newest[3:5] == ["80", "fewer than 10"]
    assert [count(n) for n in (0, 1, 9, 10, 1234)] == ["none", "fewer than 10", "fewer than 10", "10", "1,234"]
    one = window.html(windows_shown[0].report, "toy@1: window 1", [])
    assert rows(one, "How often the set held the truth") == [["all", "80", "0.900 (0.830 to 0.950)", "0.90"]]


def test_a_note_of_the_caller_stands_on_top(page):
    assert page.index("The data are replayed.") < page.index("<main>")


def test_figures_of_a_version_that_is_champion_no_more_are_named_as_such(windows_shown):
    said = "Version 4 is champion now"
    assert said in timeline.html("toy", windows_shown, [], [], champion=4)
    assert "is champion now" not in timeline.html("toy", windows_shown, [], [], champion=2)


def test_nothing_is_fetched_or_run_and_text_is_text(page, windows_shown):
    for document in (page, window.html(windows_shown[2].report, "toy@1: window 3", ["<b>bold</b>"])):
        assert "default-src 'none'" in document
        assert not re.search(r"<script|<b>|<sicker>|src=|https?://|url\(", document)


def test_windows_of_which_nothing_is_known_are_a_page_that_says_so(windows_shown):
    bare = [replace(one, report=replace(one.report, figures={}, findings=()), n=0, outcomes=0) for one in windows_shown]

    page = timeline.html("toy: time line", bare[:1], [], [])

    assert "Nothing could be judged" in page
    assert page.count("Not known for any window yet.") == 9
    assert "<svg" not in page
    assert "Nothing could be estimated" in window.html(bare[0].report, "toy@1: window 1", [])


def test_a_figure_of_a_hundred_windows_has_all_of_them_in_its_table(windows_shown):
    many = [replace(windows_shown[0], number=number) for number in range(1, 101)]

    page = timeline.html("toy: time line", many, [], [])

    assert len(rows(page, "Calibration slope: the numbers")) == 100


def test_a_window_says_what_failed_first_and_what_was_promised_beside_what_came(windows_shown):
    page = window.html(windows_shown[2].report, "toy@1: window 3", [])

    assert page.index("drift: age_years") < page.index("drift: sex")
    assert ["PPV: alert", "0.800 (0.700 to 0.900)", "0.700 (0.600 to 0.800)", "0.100"] in rows(
        page, "What the risks promised and what came true"
    )
    assert rows(page, "Every feature against the training")[0] == ["age_years", "1e-09", "0.40", "0%"]


def test_a_figure_far_off_is_drawn_where_it_lies(windows_shown):
    """Not at the edge of an axis that was too short for it."""
    report = windows_shown[0].report
    far = {"value": 9.0, "low": 6.0, "high": 90.0}
    realized = {**report.figures["realized"], "calibration_intercept": far}
    one = replace(windows_shown[0], report=replace(report, figures={**report.figures, "realized": realized}))

    drawing = section(timeline.html("toy: time line", [one], [], []), "Calibration intercept")

    heights = [float(y) for y in re.findall(r'<circle class="open" cx="[^"]+" cy="([^"]+)"', drawing)]
    ticks = {text: float(y) for y, text in re.findall(r'y="([\d.]+)" text-anchor="end">([^<]+)<', drawing)}
    assert heights[0] == pytest.approx(ticks["8"] - 4 - (ticks["6"] - ticks["8"]) / 2, abs=0.3)


def test_the_verdict_names_what_failed_by_its_kind(windows_shown):
    report = windows_shown[2].report
    both = tuple(replace(finding, verdict="failed") for finding in report.findings)

    page = window.html(replace(report, findings=both), "toy@1: window 3", [])

    assert "4 of 4 verdicts. MW002 missing: cholesterol_mg_dl; MW003 drift: age_years, sex; MW007 AUROC." in page

"""The review page: verdicts first, what changed, every figure with its numbers, and nothing but text in its text."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from evidence import review
from evidence.exhibits import OF_SOME, TITLES, attrition
from evidence.report import Finding


class Page(HTMLParser):
    """What a page is made of: its headings, ids, tags' attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.headings, self.ids, self.tags, self.text, self._open = [], [], [], [], []
        self.feed(text)
        assert self._open == [], self._open

    def handle_starttag(self, tag, attributes):
        held = dict(attributes)
        self.tags.append((tag, held))
        if "id" in held:
            self.ids.append(held["id"])
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in ("meta", "br"):
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def champion(invented_bundle, full_report):
    bundle = invented_bundle(
        "a" * 64,
        {"family": "logistic", "data": "f" * 64, "libraries": {"numpy": "2.4.5", "scikit-learn": "1.7.2"}},
        features=["age_years", "sex"],
        gates={"auroc": ">= 0.55"},
    )
    return 2, bundle, replace(full_report, bundle="a" * 64, data="f" * 64)


def between(text, start, end):
    return text[text.index(f'id="{start}"') : text.index(f'id="{end}"')]


def test_inputs_have_units_and_codes_and_what_was_beyond_detection_is_counted(invented_bundle, full_report):
    flow = full_report.figures["flow"] | {"beyond": {"ca125": {"below": 1204}}}
    told = replace(full_report, figures=full_report.figures | {"flow": flow})

    text = re.sub(r"<[^>]+>", " ", between(review.html(invented_bundle(), told, 3, None), "patients", "lineage"))

    assert re.search(r"cholesterol_mg_dl\s+number\s+mg/dL\s+2093-3\s+none", text)
    assert re.search(r"ca125\s+1,204\s+no limit", text)


def test_the_attrition_counts_down_from_the_rows_read_and_its_parts_add_up(full_report):
    steps = attrition(full_report.figures["flow"])

    assert steps == [
        ("rows read", "803", "803", ""),
        ("left out: the same row twice", "−2", "801", ""),
        ("left out: cholesterol out of range", "−1", "800", ""),
        ("kept", "800", "800", "400"),
        ("train", "450", "", "210"),
        ("test", "150", "", "70"),
        ("external", "200", "", "120"),
    ]


def test_a_failed_finding_is_said_before_anything_else(invented_bundle, full_report):
    page = review.html(invented_bundle(), full_report, 3, None)

    assert page.index("Failed: 1 of 6 verdicts. MM008 worst subgroup") < page.index('id="verdicts"')
    verdicts = between(page, "verdicts", "changes")
    assert verdicts.index("MM008") < verdicts.index("MM001") < verdicts.index("MM007")
    assert "0.868 (0.810 to 0.921)" in verdicts and "limit: ≥ 0.6" in verdicts


def test_a_report_in_which_nothing_was_judged_is_not_called_passed(invented_bundle, full_report):
    shown = tuple(replace(f, verdict="not applicable", limit=None) for f in full_report.findings)
    page = review.html(invented_bundle(), replace(full_report, findings=shown), 3, None)

    assert "Nothing could be judged" in page and "✓" not in page


def test_every_figure_is_drawn_described_and_told_in_numbers(invented_bundle, full_report):
    text = review.html(invented_bundle(), full_report, 3, None)
    page = Page(text)

    drawn = [held for tag, held in page.tags if tag == "svg"]
    assert len(drawn) == 10
    for plot in drawn:
        assert plot["role"] == "img" and set(plot["aria-labelledby"].split()) <= set(page.ids)
    assert all(f"<h3>{title}</h3>" in text for title in TITLES.values())
    for title in ("ROC curve", "Decision curve", "Feature importance", "Coverage of the prediction sets"):
        assert f"<summary>{title} as a table" in text
    assert "Not reported" not in text


def test_a_report_of_an_earlier_release_says_what_it_does_not_hold(invented_bundle, full_report):
    text = review.html(invented_bundle(), replace(full_report, figures={}), None, None)

    assert text.count("Not reported: this version was validated by a release") == len(TITLES)
    assert "<svg" not in text
    assert "toy@VERSION" in text


def test_one_missing_figure_costs_no_other(invented_bundle, full_report):
    for key in TITLES:
        held = {name: figure for name, figure in full_report.figures.items() if name != key}
        bundle = invented_bundle(uncertainty={"coverage": 0.9, "abstain_unless_one_label": True})
        text = review.html(bundle, replace(full_report, figures=held), 3, None)
        assert text.count("Not reported: the validation did not compute it") == 1, key


def test_coverage_that_was_never_promised_is_not_missed(invented_bundle, full_report):
    held = {name: figure for name, figure in full_report.figures.items() if name != "conformal"}

    assert "the spec promises no coverage" in review.html(
        invented_bundle(), replace(full_report, figures=held), 3, None
    )


def test_a_subgroup_s_number_that_is_not_told_is_not_called_small(invented_bundle, full_report):
    group = {"group": "sex female", "n": None, "coverage": 0.91, "low": 0.87, "high": 0.93, "nominal": 0.9}
    figures = {**full_report.figures, "conformal": [{**group, "abstained": 0.1}]}
    told = between(
        review.html(invented_bundle(), replace(full_report, figures=figures), 3, None), "uncertainty", "reliance"
    )

    assert "0.91 (0.87 to 0.93)" in told
    assert "fewer than" not in told


def test_what_changed_against_the_champion_is_told(invented_bundle, full_report, champion):
    changes = between(review.html(invented_bundle(), full_report, 3, champion), "changes", "discrimination")
    rows = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td><td>(.*?)</td>', changes)

    assert ("family", "logistic", "boosted") in rows
    assert ("library numpy", "2.4.5", "2.4.6") in rows
    assert ("spec: gates.auroc", "&gt;= 0.55", "&gt;= 0.60") in rows
    assert ("spec: gates.brier", "not there", "&lt;= 0.25") in rows
    assert ("AUROC", "0.868 (0.810 to 0.921)", "0.868 (0.810 to 0.921)") in rows
    (features,) = [new for what, _, new in rows if what == "features only here"]
    assert "cholesterol_mg_dl" in features and "age_years" not in features
    assert "library scikit-learn" not in changes
    assert "judged on different data" in changes


def test_a_comparison_with_the_champion_stands_beside_the_changes(invented_bundle, full_report, champion):
    paired = Finding("MM015", "AUROC against the champion", "not applicable", 0.021, None, "paired", (0.002, 0.04))
    page = review.html(invented_bundle(), replace(full_report, findings=(*full_report.findings, paired)), 3, champion)

    assert "0.021 (0.002 to 0.040)" in between(page, "changes", "discrimination")


def test_the_champion_s_own_page_compares_it_with_nobody(invented_bundle, full_report):
    bundle = invented_bundle()
    page = review.html(bundle, full_report, 3, (3, bundle, full_report))

    assert "This version is the champion, toy@3." in page


def test_the_commands_name_this_version(invented_bundle, full_report):
    decision = review.html(invented_bundle(), full_report, 3, None).partition('id="decision"')[2]

    for verb in ("approve", "promote", "reject"):
        assert f"medimind {verb} toy@3 --reason &quot;…&quot;" in decision


def test_text_stays_text_and_headings_keep_their_order(invented_bundle, full_report, champion):
    evil = '<script>alert("1")</script>'
    text = review.html(invented_bundle(title=evil, owner=evil, intended_use=evil), full_report, 3, champion)
    page = Page(text)

    assert "<script" not in text and text.count("&lt;script&gt;") >= 3
    assert "site &lt;south&gt; &amp; others" in text
    assert page.headings[0] == 1 and page.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    assert len(page.ids) == len(set(page.ids))
    assert {held["href"][1:] for tag, held in page.tags if tag == "a"} <= set(page.ids)


def test_the_page_fetches_nothing_and_is_the_same_each_time(invented_bundle, full_report, champion):
    text = review.html(invented_bundle(), full_report, 3, champion)

    assert not re.search(r"""(src|srcset|data)=|url\(|@import|https?://""", text)
    assert text == review.html(invented_bundle(), full_report, 3, champion)


def test_a_database_is_not_named_for_its_address_may_hold_a_password(invented_bundle, full_report):
    hidden = {"sql": "postgresql://clinic:s3cret@db/records", "query": "SELECT * FROM heart"}
    assert "s3cret" not in review.html(invented_bundle(source=hidden), full_report, 3, None)


def test_changes_of_the_source_hide_a_password_too(invented_bundle, full_report):
    one, other = (
        {"sql": f"postgresql://clinic:s3cret{place}@db/records", "query": "SELECT * FROM heart"} for place in (1, 2)
    )
    champion = 2, invented_bundle("a" * 64, source=one), full_report

    assert "s3cret" not in review.html(invented_bundle(source=other), full_report, 3, champion)


def test_simulated_patients_are_called_simulated(invented_bundle, full_report):
    simulated = invented_bundle(source={"simulated": "liquid_biopsy", "patients": 300, "seed": 1})

    assert "The patients are simulated" in review.html(simulated, full_report, 3, None)
    assert "simulated" not in review.html(invented_bundle(), full_report, 3, None)


def test_several_classes_and_screening_have_sections_of_their_own_where_a_spec_asks_for_them(of_classes):
    text = review.html(*of_classes, 3, None)
    page = Page(text)

    assert "An event is any of colon, lung" in text
    shown = between(text, "classes", "use") + between(text, "screening", "fairness")
    assert all(f"<h3>{title}</h3>" in shown for title in OF_SOME.values())
    assert "n 80 ·" in shown and "&lt;a programme&gt;" in shown and "where 1 % have" in shown.lower()
    assert len(page.ids) == len(set(page.ids))
    assert all(after - before <= 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    assert {held["href"][1:] for tag, held in page.tags if tag == "a"} <= set(page.ids)


def test_a_page_without_classes_or_screening_does_not_speak_of_them(invented_bundle, full_report):
    text = review.html(invented_bundle(), full_report, 3, None)

    assert 'href="#classes"' not in text and 'href="#screening"' not in text
    assert not any(title in text for title in OF_SOME.values())


def test_a_large_figure_is_told_in_thousands(invented_bundle, full_report):
    alerts = Finding(
        "MM053", "alerts of 100,000 screened", "not applicable", 55658.6, None, "shown", (49498.2, 61792.7)
    )
    text = review.html(invented_bundle(), replace(full_report, findings=(*full_report.findings, alerts)), 3, None)

    assert "55,659 (49,498 to 61,793)" in text


def test_what_trials_chose_is_shown_as_the_search_s_own_figure(invented_bundle, full_report):
    counts = {"complete": 14, "pruned": 5, "failed": 1}
    found = {
        "logistic": {"parameters": {}, "log_loss": 0.41, "log_loss_of_own": 0.41, **counts, "by_fold": []},
        "boosted": {
            "parameters": {"learning_rate": 0.123456, "max_iter": 77},
            "log_loss": 0.4321,
            "log_loss_of_own": None,
            **counts,
            "by_fold": [],
        },
    }
    text = review.html(invented_bundle(training={"trials": found}), full_report, 3, None)

    shown = between(text, "lineage", "decision")
    assert "learning_rate 0.123, max_iter 77" in shown and "the family&#x27;s own" in shown
    assert "<td>14</td><td>5</td><td>1</td><td>–</td><td>0.4321</td>" in shown
    assert "it is too good" in shown
    assert "Trials" not in review.html(invented_bundle(), full_report, 3, None)

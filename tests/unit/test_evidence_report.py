"""A report survives its file, and passes only on evidence."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence.report import Finding, Report

PASSED = Finding("MM001", "AUROC", "passed", 0.8123456789012345, ">= 0.8", "100 test patients, 40 events", (0.75, 0.87))
FAILED = Finding("MM003", "Brier score", "failed", 0.3, "<= 0.25", "100 test patients, 40 events", None)
SHOWN = Finding("MM009", "AUROC, site Zürich", "not applicable", None, None, "12 < 30 patients", None)


def report(*findings):
    return Report("angina", "validation", "b" * 64, "d" * 64, findings)


@pytest.mark.parametrize(
    ("findings", "passed"),
    [
        ((), False),
        ((SHOWN,), False),
        ((PASSED,), True),
        ((PASSED, SHOWN), True),
        ((PASSED, FAILED), False),
        ((FAILED,), False),
    ],
)
def test_a_report_passes_with_one_finding_passed_and_none_failed(findings, passed):
    assert report(*findings).passed is passed


def test_what_failed_is_named():
    assert report(PASSED, FAILED, SHOWN).failed == (FAILED,)


def test_a_finding_is_found_by_its_code():
    assert report(PASSED, FAILED).finding("MM003") == FAILED


def test_a_report_comes_back_from_its_json_as_it_was():
    before = report(PASSED, FAILED, SHOWN)
    assert Report.from_json(before.to_json()) == before


finite = st.floats(allow_nan=False, allow_infinity=False)
findings = st.builds(
    Finding,
    code=st.text(max_size=5),
    title=st.text(max_size=20),
    verdict=st.sampled_from(["passed", "failed", "not applicable"]),
    value=st.none() | finite,
    limit=st.none() | st.text(max_size=10),
    explanation=st.text(max_size=20),
    interval=st.none() | st.tuples(finite, finite),
)


@given(st.lists(findings, max_size=4))
def test_so_does_every_other(found):
    before = report(*found)
    after = Report.from_json(before.to_json())

    assert after == before
    assert after.passed == before.passed


def test_the_json_says_whether_it_passed_but_is_not_believed():
    document = json.loads(report(FAILED).to_json())
    assert document["passed"] is False
    assert Report.from_json(json.dumps({**document, "passed": True})).passed is False


def test_a_figure_that_is_no_number_is_not_written():
    with pytest.raises(ValueError, match="not JSON compliant"):
        report(replace(PASSED, value=float("nan"))).to_json()

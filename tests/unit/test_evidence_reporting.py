"""The reporting exports: every item of each guideline once, each a fact of this run or the reason why there is none."""

import json
import re
from dataclasses import replace

import pytest

from evidence.card import card
from evidence.reporting import FORMS

LINE = re.compile(r"^- \*\*(\S+)\*\* ([^:]+): (.+)$")
TRIPOD = [
    *(
        "1",
        "2",
        "3a",
        "3b",
        "3c",
        "4",
        "5a",
        "5b",
        "6a",
        "6b",
        "6c",
        "7",
        "8a",
        "8b",
        "8c",
        "9a",
        "9b",
        "9c",
        "10",
        "11",
    ),
    *(f"12{part}" for part in "abcdefg"),
    *("13", "14", "15", "16", "17", *(f"18{part}" for part in "abcdef"), "19", "20a", "20b", "20c", "21", "22"),
    *("23a", "23b", "24", "25", "26", "27a", "27b", "27c"),
]
"""Collins et al. BMJ 2024;385:e078378, table 2."""
ATTRIBUTES = {1: 4, 2: 4, 3: 2, 4: 4, 5: 2, 6: 4, 7: 5, 8: 4, 9: 2}
"""45 CFR 170.315(b)(11)(iv)(B): how many attributes each of its nine paragraphs lists."""
NUMERALS = ("i", "ii", "iii", "iv", "v")


def items(text):
    """Number, what is asked, and the answer, of every item of a Markdown export."""
    lines = [line for line in text.splitlines() if line.startswith("- ")]
    found = [LINE.match(line) for line in lines]
    assert all(found), [line for line, match in zip(lines, found, strict=True) if match is None]
    return [match.groups() for match in found if match]


@pytest.fixture
def export(invented_bundle, full_report):
    return lambda form, **changed: FORMS[form](invented_bundle(**changed), 3, full_report)


def test_every_item_of_tripod_stands_there_once_and_in_order(export):
    assert [number for number, _, _ in items(export("tripod"))] == TRIPOD
    assert len(TRIPOD) == 52 and len({re.sub(r"\D", "", number) for number in TRIPOD}) == 27


def test_the_31_source_attributes_stand_there_once_and_in_order(export):
    numbers = [number for number, _, _ in items(export("chai")) if number.startswith("(")]

    assert numbers == [f"({place})({NUMERALS[at]})" for place, count in ATTRIBUTES.items() for at in range(count)]
    assert len(numbers) == 31


def test_the_sections_of_chai_s_card_stand_there_once(export):
    text = export("chai")
    numbers = [number for number, _, _ in items(text)]

    assert len(numbers) == len(set(numbers))
    sections = re.findall(r"^## (.+)$", text, re.M)
    assert sections[:5] == ["Release", "Uses and directions", "Warnings", "Trust ingredients", "Transparency"]
    assert [section for section in sections if section.startswith("Key metrics")] == [
        "Key metrics: usefulness, usability and efficacy",
        "Key metrics: fairness and equity",
        "Key metrics: safety and reliability",
    ]


@pytest.mark.parametrize("form", ["tripod", "chai"])
@pytest.mark.parametrize("bare", [False, True], ids=["full", "bare"])
def test_each_item_has_a_fact_or_a_reason(invented_bundle, full_report, form, bare):
    report = replace(full_report, findings=(), figures={}) if bare else full_report
    changed = {"attributes": [], "external": None, "split": {"test_fraction": 0.25, "seed": 1}} if bare else {}

    for number, asked, answer in items(FORMS[form](invented_bundle(intended_use="Sorts.", **changed), 3, report)):
        assert answer.strip(), number
        assert "None" not in answer and "[]" not in answer, (number, answer)
        if "not reported" in answer:
            assert re.fullmatch(r"not reported: .{10,}", answer), (number, asked, answer)


def test_facts_are_those_of_this_run(export):
    told = {number: answer for number, _, answer in items(export("tripod"))}

    assert "AUROC 0.868 (0.810 to 0.921), limit >= 0.6, passed" in told["23a"]
    assert "worst subgroup's AUROC 0.620 (0.480 to 0.750), limit >= 0.7, failed" in told["23a"]
    assert "train 450 patients, 210 events" in told["21"]
    assert "2 left out: the same row twice" in told["20a"]
    assert "cholesterol_mg_dl (number in mg/dL, 80 to 700, LOINC 2093-3)" in told["9b"]
    assert "boosted AUROC 0.860, log loss 0.440" in told["12c"]
    assert "alert from risk 0.610, for specificity 0.9" in told["15"]
    assert "smoker missing: all 31 (5%), events fewer than 10" in told["20b"]
    assert "b" * 64 in told["22"]
    assert told["18a"].startswith("not reported: ")


def test_a_failed_finding_is_a_known_limitation(export):
    told = {asked: answer for _, asked, answer in items(export("chai"))}

    assert told["known risks and limitations"].startswith("failed: worst subgroup's AUROC 0.620")


def test_the_card_is_the_one_that_the_server_gives(export, invented_bundle, full_report):
    served = json.loads(json.dumps(card(invented_bundle(), 3, full_report)))

    assert json.loads(export("card")) == served


def test_a_spec_s_words_make_no_item_and_no_markup_of_their_own(export):
    text = export("tripod", title="Heart\n- **99z** forged: yes <script>alert(1)</script>")

    assert [number for number, _, _ in items(text)] == TRIPOD
    assert "<script" not in text.replace("\\<", "")


def test_a_database_is_not_named_for_its_address_may_hold_a_password(export):
    hidden = {"sql": "postgresql://clinic:s3cret@db/records", "query": "SELECT * FROM heart"}

    for form in FORMS:
        assert "s3cret" not in export(form, source=hidden)


def test_a_report_says_that_its_patients_are_simulated(export):
    text = export("tripod", source={"simulated": "liquid_biopsy", "patients": 300, "seed": 1})

    assert "simulated: 300 people" in text.replace("\\", "")


def test_the_full_model_names_the_encoder_where_the_model_reads_one(invented_bundle, full_report, toy_document):
    columns = {**toy_document["columns"], "note": {"type": "text", "length": 40}}
    encoder = {"path": "anywhere", "sha256": "e" * 64, "kind": "sentence_transformer", "reads": "note"}
    changed = {
        "columns": columns,
        "features": [*toy_document["features"], "note"],
        "candidates": ["logistic", "frozen_encoder"],
        "encoder": {**encoder, "head": "logistic"},
    }
    for family, named in (("frozen_encoder", True), ("logistic", False)):
        text = FORMS["tripod"](invented_bundle(training={"family": family}, **changed), 3, full_report)
        (told,) = [said for number, _, said in items(text) if number == "22"]
        assert ("e" * 64 in told) is named

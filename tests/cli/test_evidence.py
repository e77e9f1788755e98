"""What a reviewer types to look at the evidence: validation elsewhere, two versions side by side."""

import csv
import json

import pytest


@pytest.fixture
def elsewhere(tmp_path, toy_table):
    """`elsewhere(n, seed, …)`: a file of other patients, in the source's own columns."""

    def write(n=300, seed=9, keep=lambda row: True):
        table = toy_table(n, seed)
        path = tmp_path / "elsewhere.csv"
        rows = [row for row in zip(*table.values(), strict=True) if keep(dict(zip(table, row, strict=True)))]
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([list(table), *rows])
        return path

    return write


def test_a_version_is_judged_on_patients_of_somewhere_else(machine, medimind, elsewhere):
    said = medimind("validate", "toy@1", "--on", elsewhere())

    assert said.code == 0, said.err
    assert "MM001" in said.out and "MM023" in said.out
    (path,) = machine.reports.glob("toy/external-1-*.json")
    report = json.loads(path.read_text(encoding="utf-8"))
    assert report["kind"] == "external validation"
    found = {finding["code"]: finding for finding in report["findings"]}
    assert 0.6 < found["MM001"]["value"] < 1
    assert found["MM034"]["value"] == 0
    assert path.with_suffix(".html").exists()
    path.unlink()


def test_patients_whom_it_learned_from_are_no_external_validation(machine, medimind):
    said = medimind("validate", "toy@1", "--on", machine.data / "raw" / "toy.csv")

    assert said.code == 0, said.err
    line = next(line for line in said.out.splitlines() if "MM034" in line)
    assert "failed" in line


def test_fewer_than_ten_of_a_class_are_refused_with_their_number(machine, medimind, elsewhere):
    events = iter(range(1000))
    said = medimind("validate", "toy@1", "--on", elsewhere(keep=lambda row: not row["sick"] or next(events) < 9))

    assert said.code == 2
    assert "9 events" in said.err and "at least 10 of each are needed" in said.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("validate", "toy@1", "--on", "nowhere.csv"), "nowhere.csv: does not exist"),
        (("validate", "toy@1", "--on", "mars"), "'mars': is neither a .csv or .parquet file nor a disease"),
        (("validate", "toy@7", "--on", "toy"), "toy@7 is not registered"),
        (("compare", "toy@1", "picky@1"), "two versions of one disease are expected"),
        (("compare", "toy@1", "toy@7"), "toy@7 is not registered"),
    ],
)
def test_what_cannot_be_judged_is_named(machine, medimind, words, told):
    said = medimind(*words)
    assert said.code == 2 and told in said.err, said


def test_two_versions_side_by_side(machine, medimind):
    said = medimind("compare", "toy@1", "toy@1")

    assert said.code == 0, said.err
    assert "auroc" in said.out and "+0.000" in said.out
    assert "nothing: the same data, spec and code" in said.out

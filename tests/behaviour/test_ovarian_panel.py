"""The ovarian panel on an invented workbook of the published shape: no such women exist, and no file is needed."""

import random
from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook

from configs.errors import RecordError, SourceError
from configs.settings import ROOT, Settings
from configs.spec import Spec, from_document, load_spec
from features.columns import check_record, check_table, translate_table
from features.synthetic import draw
from pipelines import sources

NAME = "ovarian_cancer_blood"


@pytest.fixture(scope="module")
def spec() -> Spec:
    return load_spec(NAME, ROOT / "configs")


@pytest.fixture
def machine(tmp_path: Path) -> Settings:
    """A fresh clone: the spec's file is not there."""
    return Settings(home=tmp_path / "home", configs=tmp_path / "configs", data=tmp_path / "data")


@pytest.fixture
def read(spec, machine):
    """`read(changes)`: the records and refusals of 40 invented women, some of whose cells, by row, are these."""

    def run(changes: dict[int, dict[str, Any]]) -> Any:
        dice, heads = random.Random(5), {name: column.from_ or name for name, column in spec.columns.items()}
        book = Workbook()
        book.active.append(["SUBJECT_ID", *heads.values(), "TYPE"])
        for row, record in enumerate(draw(spec.columns, 40, seed=3)):
            cells = {heads[name]: value for name, value in record.items()}
            cells |= {"Menopause": dice.randint(0, 1), **changes.get(row, {})}
            book.active.append([row + 1, *(cells.get(head) for head in heads.values()), dice.randint(0, 1)])
        path = machine.data / "panel.xlsx"
        path.parent.mkdir(parents=True)
        book.save(path)
        here = from_document({**spec.document, "source": {"xlsx": str(path)}}, "invented")
        table = sources.read(here, machine)
        return check_table(here, table, translate_table(here, table))

    return run


def test_where_the_workbook_is_published_is_said_while_it_is_not_there(spec, machine):
    (said,) = sources.absent(spec, machine)

    assert "Int J Med Inform 2020;141:104195" in said
    assert "th7fztbrv9" in said
    assert str(machine.configs.parent / "data" / "raw" / NAME / "Supplementary_data_1.xlsx") in said
    with pytest.raises(SourceError, match="th7fztbrv9"):
        sources.read(spec, machine)


def test_a_woman_without_a_required_marker_is_refused_and_the_rest_goes_on(read):
    records, refusals = read({3: {"HE4": None}, 8: {"CA125": None}})

    assert [(refusal.row, refusal.column, refusal.code) for refusal in refusals] == [
        (9, "ca125_u_ml", "missing_field"),
        (4, "he4_pmol_l", "missing_field"),
    ]
    assert len(records) == 38


def test_numbers_that_are_text_and_values_beyond_detection_are_read_as_what_they_say(read):
    records, refusals = read({0: {"AFP": "3.58\t", "CA19-9": "<0.60"}, 1: {"AFP": "<0.61", "CA72-4": 0.1}})

    assert refusals == []
    assert records.values["afp_ng_ml"][:2].tolist() == [3.58, 0.61]
    assert records.values["ca19_9_u_ml"][0] == 0.6
    assert records.values["ca72_4_u_ml"][1] == 0.2


def test_a_panel_of_another_laboratory_s_kit_is_refused_by_name(spec, read):
    _, refusals = read({5: {"CA19-9": "<2.0"}, 6: {"HE4": ">1500"}})
    record = draw(spec.columns, 1, seed=3)[0]

    assert {(refusal.row, refusal.column, refusal.code) for refusal in refusals} == {
        (6, "ca19_9_u_ml", "detection_limit"),
        (7, "he4_pmol_l", "not_a_number"),
    }
    with pytest.raises(RecordError, match="ca19_9_u_ml"):
        check_record(spec.columns, {**record, "ca19_9_u_ml": "<2.0"})


def test_whether_the_neutrophils_were_counted_is_no_input_and_the_markers_are_never_absent(spec):
    """In the published table both tell the cancers apart without any value (data/README.md)."""
    assert "neutrophils_pct" not in spec.features
    assert all(spec.columns[name].required for name in ("ca125_u_ml", "he4_pmol_l", "cea_ng_ml"))

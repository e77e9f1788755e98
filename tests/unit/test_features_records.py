"""Records come back from their file as they went, or the file is refused."""

import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from configs.errors import ContractError
from configs.spec import Column, from_document
from features import records
from features.columns import check_table, translate_table


@pytest.fixture
def spec(toy_document):
    return from_document(toy_document, "toy.yaml")


@pytest.fixture
def found(spec, toy_table):
    table = toy_table(60, 2)
    return check_table(spec, table, translate_table(spec, table))[0]


def assert_same(one, other):
    assert list(one.values) == list(other.values)
    for name in one.values:
        assert one.values[name].dtype == other.values[name].dtype == np.float64
        assert_array_equal(one.values[name], other.values[name])
    for key in ("outcome", "patient", "at"):
        assert_array_equal(getattr(one, key), getattr(other, key))
    assert (one.future, one.beyond) == (other.future, other.beyond)


def test_records_come_back_to_the_bit_with_their_counts(found, spec, tmp_path):
    records.save(found, spec, {"age_years: out of range": 2}, tmp_path / "toy.parquet")

    again, dropped = records.load(spec, tmp_path / "toy.parquet")

    assert_same(again, found)
    assert dropped == {"age_years: out of range": 2}


def test_what_was_beyond_detection_comes_back_as_what_it_counts_as_and_as_a_count(toy_document, toy_table, tmp_path):
    toy_document["columns"]["max_heart_rate_bpm"] |= {"below_detection": {"limit": 60, "counts_as": 42.5}}
    spec = from_document(toy_document, "toy.yaml")
    table = toy_table(60, 2)
    table["rate"][:2] = ["<60", 59]
    found = check_table(spec, table, translate_table(spec, table))[0]
    records.save(found, spec, {}, tmp_path / "toy.parquet")

    again, _ = records.load(spec, tmp_path / "toy.parquet")

    assert_same(again, found)
    assert again.values["max_heart_rate_bpm"][:2].tolist() == [42.5, 42.5]
    assert again.take(np.array([5])).beyond == {"max_heart_rate_bpm": {"below": 2}}


def test_no_records_at_all_come_back_too(found, spec, tmp_path):
    records.save(found.take(np.zeros(len(found), bool)), spec, {}, tmp_path / "toy.parquet")

    again, dropped = records.load(spec, tmp_path / "toy.parquet")

    assert (len(again), dropped) == (0, {})
    assert list(again.values) == list(spec.columns)


def test_people_can_read_the_file(found, spec, tmp_path):
    records.save(found, spec, {}, tmp_path / "toy.parquet")

    table = pq.read_table(tmp_path / "toy.parquet")

    assert set(table["sex"].to_pylist()) == {"female", "male"}
    assert set(table["pain"].to_pylist()) == {"none", "exertion", "rest", None}


def test_labels_are_what_people_read():
    values = np.array([1.0, np.nan, 0.0])

    assert records.labels(("no", "yes"), values) == ["yes", None, "no"]
    assert records.labels((), values) == [1.0, None, 0.0]


def test_some_rows_are_taken_whole_and_in_the_order_asked_for(found):
    taken = found.take(np.array([5, 2]))

    assert taken.patient.tolist() == [found.patient[5], found.patient[2]]
    assert taken.values["age_years"].tolist() == [found.values["age_years"][5], found.values["age_years"][2]]


def test_a_file_that_is_not_there_says_which_command_makes_it(spec, tmp_path):
    with pytest.raises(ContractError, match=r"toy.parquet: no readable records; `medimind ingest toy` makes it"):
        records.load(spec, tmp_path / "toy.parquet")


def test_a_file_that_is_broken_is_refused(found, spec, tmp_path):
    path = tmp_path / "toy.parquet"
    records.save(found, spec, {}, path)
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(ContractError, match="no readable records"):
        records.load(spec, path)


@pytest.mark.parametrize(
    "change",
    [
        {"weight_kg": {"type": "number", "unit": "kg", "range": [20, 300]}},
        {"sex": {"type": "category", "map": {"F": "woman", "M": "man"}}},
        {"sex": {"type": "number", "unit": "1", "range": [0, 1]}},
        {"age_years": {"type": "category", "values": ["old", "young"]}},
    ],
)
def test_a_file_of_another_contract_is_refused(found, spec, tmp_path, toy_document, change):
    records.save(found, spec, {}, tmp_path / "toy.parquet")
    toy_document["columns"] |= change

    with pytest.raises(ContractError, match="written under another contract"):
        records.load(from_document(toy_document, "toy.yaml"), tmp_path / "toy.parquet")


def test_a_parquet_file_that_we_did_not_write_is_refused(found, spec, tmp_path):
    path = tmp_path / "toy.parquet"
    records.save(found, spec, {}, path)
    pq.write_table(pq.read_table(path).drop_columns(["(outcome)"]), path)

    with pytest.raises(ContractError):
        records.load(spec, path)


def test_a_parquet_file_without_counts_is_refused(found, spec, tmp_path):
    path = tmp_path / "toy.parquet"
    records.save(found, spec, {}, path)
    pq.write_table(pq.read_table(path).replace_schema_metadata({}), path)

    with pytest.raises(ContractError):
        records.load(spec, path)


def test_records_of_another_range_or_order_of_categories_are_refused(found, spec, tmp_path, toy_document):
    records.save(found, spec, {}, tmp_path / "toy.parquet")
    toy_document["columns"]["sex"]["map"] = {"M": "male", "F": "female"}
    other = from_document(toy_document, "toy.yaml")

    with pytest.raises(ContractError, match="was written under another contract; `medimind ingest toy` makes it anew"):
        records.load(other, tmp_path / "toy.parquet")
    assert pa.types.is_string(pq.read_schema(tmp_path / "toy.parquet").field("sex").type)


def test_an_array_comes_back_to_the_bit_and_a_missing_one_as_missing(spec, tmp_path):
    columns = {"bins": Column(type="array", length=3, unit="1", range=(0, 10))}
    bins = np.array([[0.1, 0.2, 0.3], [np.nan] * 3, [1, 2, 3]])
    found = records.Records({"bins": bins}, np.array([0.0, 1, 1]), np.array(["a", "b", "c"]), np.full(3, np.nan))
    spec = spec.model_copy(update={"columns": columns})
    records.save(found, spec, {}, tmp_path / "bins.parquet")

    again, _ = records.load(spec, tmp_path / "bins.parquet")

    assert_same(again, found)
    assert pq.read_table(tmp_path / "bins.parquet")["bins"].to_pylist()[1] is None
    assert again.take(np.array([2])).values["bins"].shape == (1, 3)


def test_signals_come_back_to_the_bit_and_never_as_pythons_own_numbers(spec, tmp_path):
    wave = Column(type="waveform", leads=("II",), sampling_hz=500, samples=5000, unit="mV", range=(-10, 10))
    ecg = np.random.default_rng(0).normal(size=(60, 5000)).astype(np.float32).astype(np.float64)
    ecg[[3, 59]] = np.nan
    found = records.Records({"ecg": ecg}, np.zeros(60), np.array([str(row) for row in range(60)]), np.full(60, np.nan))
    spec = spec.model_copy(update={"columns": {"ecg": wave}})

    tracemalloc.start()
    records.save(found, spec, {}, tmp_path / "ecg.parquet")
    again, _ = records.load(spec, tmp_path / "ecg.parquet")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert_same(again, found)
    assert most < 3 * ecg.nbytes


def test_a_signal_of_another_length_is_refused(spec, tmp_path):
    bins = {"bins": Column(type="array", length=3, unit="1", range=(0, 10))}
    found = records.Records({"bins": np.ones((2, 3))}, np.zeros(2), np.array(["a", "b"]), np.full(2, np.nan))
    spec = spec.model_copy(update={"columns": bins})
    records.save(found, spec, {}, tmp_path / "bins.parquet")
    table = pq.read_table(tmp_path / "bins.parquet")
    pq.write_table(table.set_column(0, "bins", pa.array([[1.0, 2], [1, 2, 3, 4]])), tmp_path / "bins.parquet")

    with pytest.raises(ContractError, match="is not what was written"):
        records.load(spec, tmp_path / "bins.parquet")


def test_classes_and_stages_come_back_as_they_went(toy_document, toy_table, tmp_path):
    kinds = {"classes": {"none": [0], "some": [1], "much": [2]}, "positive": ["some", "much"], "stage": "stage"}
    toy_document["outcome"] = {"column": "kind", "missing_if": [9], **kinds}
    spec = from_document(toy_document, "toy.yaml")
    table = toy_table(60, 2) | {"kind": [0, 1, 2, 9] * 15, "stage": [None, "II", 3.0, ""] * 15}
    found = check_table(spec, table, translate_table(spec, table))[0]
    records.save(found, spec, {}, tmp_path / "toy.parquet")

    again, _ = records.load(spec, tmp_path / "toy.parquet")

    assert_array_equal(again.label, [0, 1, 2, np.nan] * 15)
    assert_array_equal(again.outcome, [0, 1, 1, np.nan] * 15)
    assert_array_equal(again.stage, ["", "II", "3", ""] * 15)
    assert_array_equal(again.take(np.array([5, 2])).label, [1, 2])
    assert_array_equal(again.take(np.array([5, 2])).stage, ["II", "3"])

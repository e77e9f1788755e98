"""The one door: a batch is its rows one by one, to the bit, and a name is a thing in the repository or refused."""

import copy
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from configs.errors import RecordError, SpecError
from configs.settings import ROOT
from configs.spec import diseases, from_document, load_spec
from features.build import AT, Feature, Plan, attributes, build, plan
from features.columns import as_arrays, check_record, times
from features.events import Reducer
from features.synthetic import draw, edges

HEART = load_spec("heart_disease", ROOT / "configs")
NAN = float("nan")


def arrays(spec, records):
    """Requests as the arrays that `build` takes, and their times."""
    reducer = Reducer(spec.columns, spec.events)
    checked = [check_record(spec.columns, record, reducer) for record in records]
    return as_arrays(spec.columns, checked), times(checked)


def rows_of(values, at, rows):
    return {name: array[rows] for name, array in values.items()}, at[rows]


def bits(matrix):
    return [row.tobytes() for row in matrix]


@pytest.fixture
def toy(toy_document):
    return from_document(toy_document, "toy.yaml")


@pytest.mark.parametrize("name", diseases(ROOT / "configs"))
@given(st.integers(min_value=1, max_value=40), st.integers(min_value=0, max_value=2**32), st.randoms())
def test_a_batch_is_its_rows_one_by_one_to_the_bit_in_any_order(name, n, seed, dice):
    spec = load_spec(name, ROOT / "configs")
    door = plan(spec)
    if any(column.length for column in spec.columns.values()):
        n = min(n, 6)  # a sample of hundreds of numbers takes its time
    values, at = arrays(spec, draw(spec.columns, n, seed, spec.events) + edges(spec.columns, spec.events))
    order = list(range(len(at)))
    dice.shuffle(order)

    together = bits(build(door, values, at))
    alone = [bits(build(door, *rows_of(values, at, [row])))[0] for row in order]
    shuffled = bits(build(door, *rows_of(values, at, order)))

    assert alone == shuffled == [together[row] for row in order]


@given(st.integers(min_value=0, max_value=2**32))
def test_attributes_of_a_batch_are_those_of_its_rows(seed):
    door = plan(HEART)
    values, at = arrays(HEART, draw(HEART.columns, 7, seed))

    together = attributes(door, values, at)

    for row in range(7):
        alone = attributes(door, *rows_of(values, at, [row]))
        assert {name: labels[0] for name, labels in alone.items()} == {
            name: labels[row] for name, labels in together.items()
        }


def test_the_matrix_is_float32_with_the_plans_columns(toy):
    values, at = arrays(toy, [{"age_years": 60, "sex": "male", "max_heart_rate_bpm": 120, "pain": "rest"}])

    X = build(plan(toy), values, at)

    assert plan(toy).names == toy.features
    assert (X.dtype, X.shape) == (np.float32, (1, 7))
    assert_array_equal(X, np.array([[60, NAN, 120, 0.75, 1, 2, NAN]], dtype=np.float32))


def test_no_rows_give_an_empty_matrix_of_the_right_width(toy):
    X = build(plan(toy), *arrays(toy, []))

    assert (X.dtype, X.shape) == (np.float32, (0, 7))


def test_building_changes_nothing_it_was_given(toy):
    values, at = arrays(toy, draw(toy.columns, 5, 1))
    before = copy.deepcopy(values)

    build(plan(toy), values, at)
    attributes(plan(toy), values, at)

    for name in values:
        assert_array_equal(values[name], before[name])


def ratio(x, y):
    return x / y


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [(1, 2, 0.5), (1, 0, NAN), (0, 0, NAN), (1e300, 1e-300, NAN), (1e300, 1, NAN), (NAN, 1, NAN)],
)
def test_a_division_by_zero_or_an_overflow_is_unknown_and_not_infinite(x, y, expected):
    door = Plan((Feature("ratio", ("x", "y"), ratio, ()),), ())

    X = build(door, {"x": np.array([x]), "y": np.array([y])}, np.array([NAN]))

    assert_array_equal(X, np.array([[expected]], dtype=np.float32))


def test_a_column_too_large_for_float32_is_unknown_and_not_infinite():
    X = build(Plan((Feature("x", ("x",), None, ()),), ()), {"x": np.array([1e39, -1e39, 1.0])}, np.full(3, NAN))

    assert_array_equal(X, np.array([[NAN], [NAN], [1]], dtype=np.float32))


def test_everything_unknown_has_the_same_bits():
    """A replay compares the digests of feature rows, whatever processor said "not a number"."""
    nans = np.array([0x7FF8000000000000, 0xFFF8000000000000, 0x7FF8000000012345], np.uint64)
    x = np.concatenate([nans.view(np.float64), [np.inf, -np.inf, 1e300]])

    found = build(Plan((Feature("x", ("x",), None, ()),), ()), {"x": x}, x)

    assert set(bits(found)) == {np.float32(NAN).tobytes()}


def test_a_definition_may_read_the_time_of_prediction():
    def days_since(at, x):
        return (at - x) / 86400

    door = Plan((Feature("days_since", (AT, "x"), days_since, ()),), ())

    X = build(door, {"x": np.array([0.0, 0.0])}, np.array([86400.0, NAN]))

    assert_array_equal(X, np.array([[1], [NAN]], dtype=np.float32))


def test_attributes_read_as_people_say_them(toy):
    records = [
        {"age_years": 60, "sex": "male", "site": "south"},
        {"age_years": 44, "sex": "female"},
    ]

    found = attributes(plan(toy), *arrays(toy, records))

    assert {name: labels.tolist() for name, labels in found.items()} == {
        "sex": ["male", "female"],
        "age_band": ["55", "18"],
        "site": ["south", "unknown"],
    }


def test_mmol_and_mg_build_the_same_features(toy):
    mg, mmol = (
        {"age_years": 60, "sex": "male", "cholesterol_mg_dl": value}
        for value in (200, {"value": 5.1726, "unit": "mmol/L"})
    )

    X = build(plan(toy), *arrays(toy, [mg, mmol]))

    assert X[0, 1] == pytest.approx(X[1, 1], rel=1e-5)
    assert_array_equal(np.delete(X, 1, axis=1)[0], np.delete(X, 1, axis=1)[1])


@pytest.mark.parametrize("key", ["features", "attributes"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("age", "'age' is no column. Columns: age_years, "),
        ("cardiology.rate", "features/definitions/cardiology.py does not exist"),
        ("cardiology.stress.rate", "features/definitions/cardiology.stress.py does not exist"),
        ("cardiac.heart_rate_reserve_used.rate", "does not exist"),
        ("cardiac.heart_rate", "features/definitions/cardiac.py has: heart_rate_reserve_used."),
        ("cardiac.Array", "does not exist"),  # imported there, not defined
        ("cardiac.", "does not exist"),
        (".rate", "is no column"),
        ("..outcomes.observed", "does not exist"),
        ("outcomes.observed", "features/definitions/outcomes.py does not exist"),
    ],
)
def test_a_name_that_is_nothing_in_the_repository_is_refused(toy_document, key, name, reason):
    toy_document[key] = [name]

    with pytest.raises(SpecError) as refused:
        plan(from_document(toy_document, "toy.yaml"))

    assert str(refused.value).startswith(f"configs/diseases/toy.yaml: {key}: {name!r}")
    assert reason in str(refused.value)


def test_a_function_that_reads_a_column_we_do_not_have_is_refused(toy_document):
    del toy_document["columns"]["max_heart_rate_bpm"]
    toy_document["features"] = ["cardiac.heart_rate_reserve_used"]

    with pytest.raises(SpecError, match="reads the column 'max_heart_rate_bpm', which `columns` does not have"):
        plan(from_document(toy_document, "toy.yaml"))


def test_a_feature_knows_its_categories(toy):
    by_name = {feature.name: feature for feature in plan(toy).features}

    assert by_name["pain"].categories == ("none", "exertion", "rest")
    assert by_name["smoker"].categories == ("false", "true")
    assert by_name["age_years"].categories == ()
    assert by_name["cardiac.heart_rate_reserve_used"].reads == ("max_heart_rate_bpm", "age_years")
    assert replace(by_name["pain"], name="other").reads == ("pain",)


@pytest.fixture
def cfdna_document():
    """The simulated screening's spec, as it stands in a bundle: with the references' content."""
    return copy.deepcopy(load_spec("cancer_origin_simulated", ROOT / "configs").document)


def test_a_definition_of_several_numbers_is_a_feature_for_each_and_is_computed_once(cfdna_document):
    cfdna_document["features"] = ["age_years", "methylation.cell_type_fractions", "sex"]
    door = plan(from_document(cfdna_document, "simulated.yaml"))
    calls = []
    counted = tuple(
        replace(each, function=lambda asked=each.function, **read: calls.append(1) or asked(**read))
        if each.function
        else each
        for each in door.features
    )
    values, at = arrays(load_spec("cancer_origin_simulated", ROOT / "configs"), [{**RECORD}] * 2)

    X = build(Plan(counted, ()), values, at)

    assert door.names[:3] == (
        "age_years",
        "methylation.cell_type_fractions.granulocyte",
        "methylation.cell_type_fractions.monocyte",
    )
    assert (len(door.names), len(calls)) == (11, 1)
    assert X[:, 1:10].sum(axis=1) == pytest.approx([1, 1])
    assert X[:, 0].tolist() == [61, 61]
    assert_array_equal(door.features[3].compute(values, at).astype(np.float32), X[:, 3])


RECORD = {
    "genome_build": "GRCh38",
    "kit": "simulated-1",
    "age_years": 61,
    "sex": "female",
    "short_fragments": [9] * 156,
    "long_fragments": [40] * 156,
    "fragment_sizes": [5] * 200,
    "methylation_betas": [0.5] * 90,
}


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("genome_build", "GRCh37", "genome_build: a text of 6 characters is not one of: GRCh38."),
        ("kit", "another", "kit: a text of 7 characters is not one of: simulated-1."),
        ("genome_build", None, "genome_build: is required and is missing."),
        ("short_fragments", [9] * 504, "short_fragments: a list of 504; 156 numbers are expected, in this order."),
    ],
)
def test_bins_of_another_genome_build_kit_or_number_are_refused_by_name(cfdna_document, field, value, told):
    columns = from_document(cfdna_document, "simulated.yaml").columns
    check_record(columns, RECORD)

    with pytest.raises(RecordError) as refused:
        check_record(columns, {**RECORD, field: value})

    assert (refused.value.field, str(refused.value)) == (field, told)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("columns", "short_fragments", "length"), 100, "its columns short_fragments (100), long_fragments (156)"),
        (("references", "healthy_panel", "content", "gc"), [0.4, 0.5], "do not fit each other"),
        (("references", "healthy_panel", "content", "gc"), [[0.4], [0.5, 0.6]], "its lists are of several lengths"),
        (("references", "healthy_panel", "content", "gc"), [0.4, None], "a list of finite numbers, or one of texts"),
        (("references", "healthy_panel", "content"), {"about": "nothing"}, "do not fit each other"),
        (("references", "healthy_panel", "content"), None, "its content was not read"),
        (("references",), {}, "reads the column 'healthy_panel', which `columns` does not have, nor `references`"),
        (("attributes",), ["cfdna.arm_z_scores"], "gives several numbers; an attribute is one"),
    ],
)
def test_arrays_and_references_that_do_not_fit_are_refused_before_any_patient_is_read(
    cfdna_document, path, value, told
):
    cfdna_document["features"] = ["age_years", "cfdna.arm_z_scores"]
    *folders, last = path
    place = cfdna_document
    for folder in folders:
        place = place[folder]
    place[last] = value

    with pytest.raises(SpecError) as refused:
        plan(from_document(cfdna_document, "simulated.yaml"))

    assert told in str(refused.value)


def test_nobody_has_a_matrix_without_rows_and_no_definition_is_asked():
    """As where every record of a request was refused: recordings of nobody have no length to be told from."""
    spec = load_spec("ecg_rhythm", ROOT / "configs")
    door = plan(spec)
    nobody = {name: np.empty((0, column.size) if column.size else 0) for name, column in spec.columns.items()}

    assert build(door, nobody, np.empty(0)).shape == (0, door.width)

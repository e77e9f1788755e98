"""Whom a model learns from: every source row is accounted for once, and a seed is a promise."""

import math
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from configs.errors import CohortError
from configs.settings import ROOT
from configs.spec import External, Split, from_document, load_spec
from features import cohort
from features.build import plan
from features.columns import check_table, translate_table
from features.records import Records

NAN = float("nan")


@pytest.fixture
def toy(toy_document):
    return from_document(toy_document, "toy.yaml")


@pytest.fixture
def prepared(toy, toy_table):
    """The cohort of a toy table, by a Spec of one's own if need be."""

    def prepare(table=None, spec=toy):
        table = toy_table(400, 1) if table is None else table
        records, _ = check_table(spec, table, translate_table(spec, table))
        return cohort.prepare(spec, plan(spec), records, {})

    return prepare


@pytest.fixture(scope="session")
def heart(heart_table):
    spec = load_spec("heart_disease", ROOT / "configs")
    records, refusals = check_table(spec, heart_table, translate_table(spec, heart_table))
    return spec, records, refusals


def numbers_of(part, outcome):
    """Records of the toy columns with this part of the split by site and these outcomes, all else alike."""
    n = len(outcome)
    site = {"learn": 0.0, "external": 2.0, "nowhere": NAN}
    rest = ["age_years", "cholesterol_mg_dl", "max_heart_rate_bpm", "sex", "pain", "smoker"]
    values = {name: np.full(n, 1.0) for name in rest} | {"site": np.array([site[name] for name in part])}
    values["age_years"] = 20 + np.arange(n) * 0.01  # no two rows alike
    return Records(values, np.array(outcome, dtype=np.float64), np.array([f"P{i}" for i in range(n)]), np.full(n, NAN))


def test_the_real_heart_file_is_what_was_published(heart, heart_table):
    _, records, refusals = heart
    site = [heart_table["dataset"].count(name) for name in ("Cleveland", "Hungary", "Switzerland", "VA Long Beach")]

    assert site == [304, 293, 123, 200]
    assert refusals == []
    assert len(records) == 920
    assert records.outcome.sum() == 509
    swiss = records.values["site"] == 2
    assert swiss.sum() == 123
    assert np.isnan(records.values["cholesterol_mg_dl"][swiss]).all()


def test_the_real_heart_cohort_is_split_as_promised(heart):
    spec, records, _ = heart

    found = cohort.prepare(spec, plan(spec), records, {})

    assert found.dropped == {"the same as an earlier row": 2}
    counts = {part: (len(found.only(part)), int(found.only(part).y.sum())) for part in cohort.PARTS}
    assert counts == {"train": (448, 184), "test": (148, 61), "external": (322, 263)}
    assert set(found.only("external").attributes["site"]) == {"switzerland", "long_beach"}
    assert set(found.only("train").attributes["site"]) == {"cleveland", "hungary"}
    assert (found.X.shape, found.X.dtype) == ((918, 11), np.float32)


@given(
    st.lists(
        st.tuples(st.sampled_from(["learn", "learn", "external", "nowhere"]), st.sampled_from([0, 1, NAN])), max_size=40
    ),
    st.integers(min_value=0, max_value=2**32),
)
def test_every_row_is_in_one_part_or_counted_as_dropped(toy_spec, rows, seed):
    anchors = [("learn", 0), ("learn", 1)] * 20  # enough to learn from, whatever else is drawn
    part, outcome = zip(*anchors, *rows, strict=True)
    records = numbers_of(part, outcome)
    spec = toy_spec.model_copy(
        update={"split": Split(sites=("north", "south"), test_fraction=0.25, seed=seed), "attributes": ()}
    )

    found = cohort.prepare(spec, plan(spec), records, {"age_years: out of range": 3})

    assert len(found) + sum(found.dropped.values()) == len(records) + 3
    parts = {name: set(found.only(name).patient) for name in cohort.PARTS}
    assert sum(len(patients) for patients in parts.values()) == len(set().union(*parts.values())) == len(found)
    assert set(found.y) <= {0, 1}
    known = ~np.isnan(records.outcome)
    assert len(parts["external"]) == (known & (np.array(part) == "external")).sum()
    assert found.dropped.get("outcome missing", 0) == (~known).sum()
    assert found.dropped.get("of a site in no part", 0) == (known & (np.array(part) == "nowhere")).sum()


@pytest.fixture(scope="session")
def toy_spec():
    """The heart's Spec cut down to what a split looks at, for properties (which take no fixture made for each test)."""
    heart = load_spec("heart_disease", ROOT / "configs")
    site = heart.columns["site"].model_copy(update={"map": {"N": "north", "S": "south", "E": "east"}})
    columns = {"age_years": heart.columns["age_years"], "site": site}
    external = heart.external.model_copy(update={"sites": ("east",)})
    return heart.model_copy(update={"columns": columns, "features": ("age_years",), "external": external})


def test_the_same_seed_is_the_same_split_and_another_is_another(prepared, toy_document):
    toy_document["split"]["seed"] += 1
    other = from_document(toy_document, "toy.yaml")

    assert_array_equal(prepared().part, prepared().part)
    assert prepared().fingerprint == prepared().fingerprint
    assert (prepared(spec=other).part != prepared().part).any()


def test_test_patients_are_drawn_within_every_site_and_outcome_alike(prepared):
    found = prepared()

    for site in ("north", "south"):
        for outcome in (0, 1):
            rows = found.part[(found.attributes["site"] == site) & (found.y == outcome)]
            assert (rows == "test").mean() == pytest.approx(0.25, abs=0.02)
    assert (found.part[found.attributes["site"] == "east"] == "external").all()


def by_day(toy_document, **changed):
    """The toy's Spec, split by a day instead of by sites."""
    del toy_document["split"]["sites"]
    toy_document |= {"at": "seen", "day_zero": "2020-03-01", "external": {"after": "2020-03-31"}, **changed}
    return from_document(toy_document, "toy.yaml")


def test_who_came_on_the_day_or_after_it_is_only_judged(prepared, toy_document, toy_table):
    spec = by_day(toy_document)

    found = prepared(toy_table(400, 1) | {"seen": [row // 10 for row in range(400)]}, spec)

    after = found.at >= datetime(2020, 3, 31, tzinfo=UTC).timestamp()
    assert after.sum() == 100
    assert_array_equal(found.part == "external", after)


@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from([0, 1])), max_size=80), st.integers(0, 2**32))
def test_all_rows_of_a_patient_who_comes_again_play_one_part(toy_spec, again, seed):
    anchors = [(1000 + row, row % 2) for row in range(60)]  # enough to learn from, whatever else is drawn
    whose, outcome = zip(*anchors, *again, strict=True)
    n, half = len(whose), 60 + len(again) // 2
    records = replace(
        numbers_of(["learn"] * n, outcome),
        patient=np.array([f"P{patient}" for patient in whose]),
        at=np.arange(n) * 86400.0,
    )
    spec = toy_spec.model_copy(
        update={
            "split": Split(test_fraction=0.25, seed=seed),
            "external": External(after=str(date(1970, 1, 1) + timedelta(days=half))),
            "attributes": (),
        }
    )

    found = cohort.prepare(spec, plan(spec), records, {})

    parts = [set(found.only(part).patient) for part in cohort.PARTS]
    assert sum(len(part) for part in parts) == len(set().union(*parts))
    known = np.isin(records.patient[half:], records.patient[:half])
    assert found.dropped.get("external, of a patient who plays another part", 0) == known.sum()
    assert len(found) == n - known.sum() and len(found.only("external")) == n - half - known.sum()


def test_without_sites_everybody_is_learned_from_or_tested(prepared, toy_document, toy_table):
    del toy_document["split"]["sites"], toy_document["external"], toy_document["columns"]["site"]
    toy_document["attributes"] = []

    found = prepared(spec=from_document(toy_document, "toy.yaml"))

    assert set(found.part) == {"train", "test"}
    assert found.attributes == {}


def test_rows_alike_are_dropped_or_kept_as_the_spec_says(prepared, toy_document, toy_table):
    table = toy_table(400, 1)
    chosen = next(row for row in range(400) if table["rate"][row] is None)  # missing is alike to missing
    for cells in table.values():
        cells.append(cells[chosen])
    table["id"][-1] = "P0401"
    toy_document["duplicate_rows"] = "keep"

    dropping, keeping = prepared(table), prepared(table, from_document(toy_document, "toy.yaml"))

    assert dropping.dropped == {"the same as an earlier row": 1}
    assert "P0401" not in dropping.patient
    assert table["id"][chosen] in dropping.patient
    assert (keeping.dropped, len(keeping)) == ({}, 401)


def test_rows_alike_with_another_outcome_are_two_patients(prepared, toy_table):
    table = toy_table(400, 1)
    for cells in table.values():
        cells.append(cells[0])
    table["id"][-1], table["sick"][-1] = "P0401", 1 - table["sick"][0]

    assert prepared(table).dropped == {}


@pytest.mark.parametrize("outcome", [0, 1])
def test_one_class_alone_cannot_be_learned(prepared, toy_table, outcome):
    table = toy_table(400, 1)
    table["sick"] = [outcome] * 400

    with pytest.raises(CohortError, match=r"train part has \d+ events and \d+ non-events.*'== 1'"):
        prepared(table)


def test_too_few_events_cannot_be_learned(prepared, toy_table):
    table = toy_table(400, 1)
    table["sick"] = [int(row < 12) for row in range(400)]

    with pytest.raises(CohortError, match="at least 10"):
        prepared(table)


def test_a_test_part_without_events_is_refused(toy):
    records = numbers_of(["learn"] * 40, [0, 1] * 20)
    spec = toy.model_copy(update={"split": Split(sites=("north",), test_fraction=0.01, seed=1)})

    with pytest.raises(CohortError, match="the test part has 0 events"):
        cohort.prepare(spec, plan(spec), records, {})


def test_no_patient_left_says_where_they_went(toy):
    records = numbers_of(["nowhere", "nowhere", "learn"], [0, 1, NAN])

    with pytest.raises(CohortError) as refused:
        cohort.prepare(toy, plan(toy), records, {"age_years: out of range": 5})

    assert str(refused.value) == (
        "toy: no patient is left (age_years: out of range: 5, outcome missing: 1, of a site in no part: 2)."
    )


def test_no_records_at_all_are_refused(toy):
    with pytest.raises(CohortError, match="no patient is left"):
        cohort.prepare(toy, plan(toy), numbers_of([], []), {})


def test_a_feature_missing_in_all_of_training_is_refused_by_name(toy):
    records = numbers_of(["learn"] * 60 + ["external"] * 5, [0, 1] * 30 + [0] * 5)
    records.values["smoker"][:60] = NAN

    with pytest.raises(CohortError, match="nothing to learn from smoker: missing for every patient"):
        cohort.prepare(toy, plan(toy), records, {})


def test_a_refusal_never_names_a_patient(prepared, toy_table):
    table = toy_table(400, 1)
    table["sick"] = [0] * 400

    with pytest.raises(CohortError) as refused:
        prepared(table)

    assert "P0" not in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda found: {"names": ("renamed", *found.names[1:])},
        lambda found: {
            "X": np.where(np.arange(found.X.size).reshape(found.X.shape) == 0, 99, found.X).astype(np.float32)
        },
        lambda found: {"y": np.where(np.arange(len(found)) == 7, 1 - found.y, found.y)},
        lambda found: {"part": np.where(np.arange(len(found)) == 7, "other", found.part)},
        lambda found: {"attributes": found.attributes | {"sex": np.roll(found.attributes["sex"], 1)}},
        lambda found: {"attributes": {"sex": found.attributes["sex"]}},
        lambda found: {name: getattr(found, name)[::-1] for name in ("X", "y", "part")},
    ],
    ids=["names", "X", "y", "part", "attribute", "attributes", "order"],
)
def test_the_fingerprint_hears_every_change_in_what_is_learned_from(prepared, change):
    found = prepared()

    assert replace(found, **change(found)).fingerprint != found.fingerprint


def test_the_fingerprint_does_not_hear_who_the_patients_are(prepared):
    found = prepared()

    assert replace(found, patient=found.patient[::-1], dropped={"x": 1}).fingerprint == found.fingerprint


def test_a_cohort_comes_back_from_its_file_as_it_went(prepared, tmp_path):
    found = replace(prepared(), beyond={"max_heart_rate_bpm": {"below": 3}})

    cohort.save(found, tmp_path / "toy.parquet")
    again = cohort.load(tmp_path / "toy.parquet")

    assert again.fingerprint == found.fingerprint
    assert (again.names, again.dropped, again.beyond) == (found.names, found.dropped, found.beyond)
    assert again.X.tobytes() == found.X.tobytes()
    for key in ("y", "part", "patient", "at"):
        assert_array_equal(getattr(again, key), getattr(found, key))
    assert list(again.attributes) == list(found.attributes)
    for name in found.attributes:
        assert_array_equal(again.attributes[name], found.attributes[name])


def test_a_cohort_file_that_is_not_there_says_which_command_makes_it(tmp_path):
    with pytest.raises(CohortError, match=r"toy\.parquet: no readable cohort; `medimind prepare toy` makes it"):
        cohort.load(tmp_path / "toy.parquet")


def test_a_cohort_file_that_was_touched_is_refused(prepared, tmp_path):
    path = tmp_path / "toy.parquet"
    cohort.save(prepared(), path)
    table = pq.read_table(path)
    flipped = [1 - outcome for outcome in table["y"].to_pylist()]
    position = table.column_names.index("y")
    pq.write_table(table.set_column(position, table.schema.field("y"), [flipped]), path)

    with pytest.raises(CohortError, match="is not what its fingerprint says"):
        cohort.load(path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda table: table.replace_schema_metadata({}),
        lambda table: table.drop_columns(["y"]),
        lambda table: table.select(["y", "part", "patient", "at"]),
    ],
    ids=["no metadata", "no outcomes", "no features"],
)
def test_a_parquet_file_that_is_no_cohort_is_refused(prepared, tmp_path, spoil):
    path = tmp_path / "toy.parquet"
    cohort.save(prepared(), path)
    pq.write_table(spoil(pq.read_table(path)), path)

    with pytest.raises(CohortError):
        cohort.load(path)


def confirmed_rows(disease, n: int, seed: int) -> Records:
    """`n` confirmed patients of the invented disease, oldest first, as a ledger gives them."""
    dice = np.random.default_rng(seed)
    values = {name: dice.integers(0, 2, n).astype(float) for name in disease.spec.columns}
    values["cholesterol_mg_dl"] = dice.uniform(100, 300, n)
    values |= {"age_years": dice.integers(30, 80, n).astype(float), "max_heart_rate_bpm": dice.uniform(80, 200, n)}
    return Records(
        values,
        (dice.random(n) < 0.5).astype(float),
        np.array([f"new{row}" for row in range(n)]),
        np.arange(n, dtype=float),
    )


@given(
    y=st.lists(st.sampled_from([0.0, 1.0]), max_size=80),
    stale=st.integers(0, 40),
    fraction=st.floats(0.05, 0.5),
    fewest=st.integers(1, 6),
)
def test_a_newest_part_holds_enough_of_both_and_is_no_larger_than_it_must_be(
    y: list[float], stale: int, fraction: float, fewest: int
) -> None:
    outcomes, fresh = np.array(y, float), np.arange(len(y)) >= stale

    def holds(size: int) -> bool:
        chosen = outcomes[len(y) - size :][fresh[len(y) - size :]]
        return bool(chosen.sum() >= fewest and (1 - chosen).sum() >= fewest)

    size = cohort.newest_part(outcomes, fresh, fraction, fewest, fewest)
    least = max(int(np.ceil(fraction * len(y))), 2 * fewest)
    if size:
        assert least <= size <= len(y) // 2 and holds(size)
        assert size == least or not holds(size - 1)
    else:
        assert not any(holds(tried) for tried in range(least, len(y) // 2 + 1))


def test_a_retraining_tests_on_the_newest_and_learns_from_all_that_is_old(disease) -> None:
    confirmed = confirmed_rows(disease, 60, 3)
    part = np.where(np.arange(60) >= 45, "test", "train")
    made = cohort.retrained(disease.spec, disease.plan, disease.cohort, confirmed, part)
    old = disease.cohort.where(disease.cohort.part != "external")
    assert made.only("test").patient.tolist() == [f"new{row}" for row in range(45, 60)]
    assert set(made.only("train").patient) == set(old.patient) | {f"new{row}" for row in range(45)}
    assert not len(made.only("external"))
    again = cohort.retrained(disease.spec, disease.plan, disease.cohort, confirmed, part)
    assert again.fingerprint == made.fingerprint and again.assignment == made.assignment


def test_a_test_patient_was_never_learned_from_under_an_earlier_record(disease) -> None:
    confirmed = confirmed_rows(disease, 60, 3)
    confirmed.patient[[2, 30]] = confirmed.patient[50]
    made = cohort.retrained(
        disease.spec, disease.plan, disease.cohort, confirmed, np.where(np.arange(60) >= 45, "test", "train")
    )
    assert "new50" not in made.only("train").patient and "new50" in made.only("test").patient
    assert made.dropped["another record of a test patient"] == 2


def test_a_patient_who_stands_in_the_old_data_already_is_left_out_and_counted(disease) -> None:
    spec = disease.spec
    old = disease.cohort.where(np.zeros(len(disease.cohort), bool))
    base = confirmed_rows(disease, 60, 3)
    first = cohort.retrained(spec, disease.plan, old, base, np.where(np.arange(60) >= 45, "test", "train"))
    more = confirmed_rows(disease, 60, 4)
    for name in more.values:
        more.values[name][:5] = base.values[name][:5]
    more.outcome[:5] = base.outcome[:5]
    made = cohort.retrained(spec, disease.plan, first, more, np.where(np.arange(60) >= 45, "test", "train"))
    assert made.dropped["the same as an earlier row"] == 5


def test_a_retraining_of_other_features_than_the_old_cohort_has_is_refused(disease) -> None:
    other = replace(disease.cohort, names=(*disease.cohort.names[:-1], "another"))
    with pytest.raises(CohortError, match="other features than the champion"):
        cohort.retrained(disease.spec, disease.plan, other, confirmed_rows(disease, 60, 3), np.full(60, "train"))


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 20), st.sampled_from([0, 1])), max_size=40))
def test_a_patient_is_on_one_side_of_a_day_and_the_later_rows_are_counted(toy_spec, visits):
    anchors = [(100 + row, 5 if row < 40 else 15, row % 2) for row in range(60)]
    who, day, outcome = (np.array(column) for column in zip(*anchors, *visits, strict=True))
    records = replace(numbers_of(["learn"] * len(who), outcome.tolist()), patient=who.astype(np.str_), at=day * 86400.0)
    split = Split(sites=("north", "south"), test_after="1970-01-11", seed=1)
    spec = toy_spec.model_copy(update={"split": split, "external": None, "attributes": (), "at": "day"})

    found = cohort.prepare(spec, plan(spec), records, {})

    train, test = found.only("train"), found.only("test")
    assert not set(train.patient) & set(test.patient)
    assert (test.at >= 10 * 86400).all() and (train.at < 10 * 86400).all()
    assert len(found) + sum(found.dropped.values()) == len(records)
    met_before = (day >= 10) & np.isin(who, who[day < 10])
    assert found.dropped.get("test, of a patient who plays another part", 0) == met_before.sum()


def test_a_whole_site_may_be_the_test_part(toy_spec):
    records = numbers_of(["learn"] * 60, [0, 1] * 30)
    records.values["site"][:] = [0] * 40 + [1] * 20
    split = Split(sites=("north", "south"), test_sites=("south",), seed=1)

    spec = toy_spec.model_copy(update={"split": split, "attributes": ()})

    found = cohort.prepare(spec, plan(spec), records, {})

    assert (found.part == ["train"] * 40 + ["test"] * 20).all()


@pytest.fixture
def followed(toy_document):
    """A spec whose patients are predicted on the day they are asked, and followed for 30 days after it."""
    outcome = {**toy_document["outcome"], "time": "seen", "horizon_days": 30, "gap_days": 2}
    return from_document({**toy_document, "at": "asked", "day_zero": "2020-03-01", "outcome": outcome}, "toy.yaml")


def test_every_row_of_a_followed_table_is_in_one_part_or_left_out_for_one_reason(followed, toy_table, prepared):
    dice = np.random.default_rng(5)
    table = toy_table(900, 3)
    table["asked"] = dice.integers(0, 100, 900).tolist()
    table["seen"] = (np.array(table["asked"]) + dice.integers(-5, 70, 900)).tolist()
    table["seen"][7] = None
    table["sick"][8] = None

    found = prepared(table, followed)

    assert set(found.dropped) >= {
        "outcome missing",
        "the outcome before the time of prediction",
        "no record after the time of prediction",
        "the outcome within the gap",
        "censored before the horizon",
    }
    assert len(found) + sum(found.dropped.values()) == 900
    assert sum(len(found.only(part)) for part in cohort.PARTS) == len(found)
    days = np.array([math.inf if day is None else day for day in table["seen"]]) - np.array(table["asked"])
    sick = np.array([bool(value) for value in table["sick"]])
    assert found.y.sum() + found.dropped.get("of a site in no part", 0) >= (sick & (days > 2) & (days <= 32)).sum() - 2
    assert found.dropped["censored before the horizon"] == (~sick & (days > 0) & (days < 32)).sum()


def test_the_reasons_stand_in_the_order_of_the_steps_and_survive_the_file(followed, toy_table, prepared, tmp_path):
    table = toy_table(900, 3)
    table["asked"] = [0] * 900
    table["seen"] = [-1] * 20 + [10] * 40 + [32] * 840

    found = prepared(table, followed)
    cohort.save(found, tmp_path / "toy.parquet")

    first = ["the outcome before the time of prediction", "no record after the time of prediction"]
    assert list(found.dropped)[:2] == first
    assert list(cohort.load(tmp_path / "toy.parquet").dropped.items()) == list(found.dropped.items())


@pytest.fixture
def by_kind(toy_document, toy_table):
    """Rows of a disease of three kinds, of which these many patients have each, and their Spec."""

    def make(none=200, mild=120, severe=80, **changed):
        kinds = [*["none"] * none, *["mild"] * mild, *["severe"] * severe]
        table = toy_table(len(kinds), 1) | {"kind": kinds}
        classes = {"none": ["none"], "mild": ["mild"], "severe": ["severe"]}
        toy_document["outcome"] = {"column": "kind", "classes": classes, "positive": ["mild", "severe"], **changed}
        spec = from_document(
            {**toy_document, "split": {"test_fraction": 0.25, "seed": 17}, "external": None}, "toy.yaml"
        )
        return spec, check_table(spec, table, translate_table(spec, table))[0]

    return make


def prepared_by_kind(spec, records):
    return cohort.prepare(spec, plan(spec), records, {})


def test_a_class_is_known_beside_the_event_that_it_belongs_to(by_kind):
    found = prepared_by_kind(*by_kind())

    assert_array_equal(found.y, found.label > 0)
    assert_array_equal(found.target, found.label)
    assert_array_equal(found.where(found.label == 2).label, np.full(80, 2.0))


def test_test_patients_are_drawn_within_every_site_and_class_alike(by_kind):
    found = prepared_by_kind(*by_kind())

    for site in ("north", "south", "east"):
        for kind in (0, 1, 2):
            rows = (found.attributes["site"] == site) & (found.label == kind)
            assert (found.part[rows] == "test").sum() == round(0.25 * rows.sum()), (site, kind)


def test_the_order_of_the_rows_changes_neither_counts_nor_classes(by_kind):
    spec, records = by_kind()
    shuffled = records.take(np.random.default_rng(0).permutation(len(records)))

    one, other = prepared_by_kind(spec, records), prepared_by_kind(spec, shuffled)

    assert cohort.class_counts(spec.outcome, one.only("train")) == cohort.class_counts(
        spec.outcome, other.only("train")
    )
    assert dict(zip(one.patient.tolist(), one.label.tolist(), strict=True)) == dict(
        zip(other.patient.tolist(), other.label.tolist(), strict=True)
    )


def test_a_class_of_too_few_patients_is_refused_by_name_with_all_the_counts(by_kind):
    said = r"has 6 patients of the class severe, and at least 10 .*; bring more .*: none 150, mild 90, severe 6\."
    with pytest.raises(CohortError, match=said):
        prepared_by_kind(*by_kind(severe=8))


def test_a_class_that_never_occurs_is_refused_by_name_and_says_what_to_do(by_kind):
    with pytest.raises(
        CohortError, match=r"none of severe: correct its codes in `outcome\.classes` or take it out; none"
    ):
        prepared_by_kind(*by_kind(severe=0))


def test_a_class_that_no_test_patient_has_stops_nobody(by_kind):
    spec, records = by_kind(severe=12)
    spec = spec.model_copy(update={"split": Split(test_fraction=0.02, seed=17)})

    found = prepared_by_kind(spec, records)

    counts = cohort.class_counts(spec.outcome, found.only("test"))
    assert counts["severe"] == 0 and counts["mild"] > 0


@pytest.mark.parametrize(("second", "dropped"), [(251, 1), (350, 0)], ids=["mild as well", "severe"])
def test_rows_alike_are_one_patient_only_if_their_class_is_the_same(by_kind, second, dropped):
    spec, records = by_kind()
    like_the_first = np.arange(len(records)) == second
    values = {name: np.where(like_the_first, array[250], array) for name, array in records.values.items()}

    found = prepared_by_kind(spec, replace(records, values=values))

    assert found.dropped.get("the same as an earlier row", 0) == dropped


def test_classes_and_stages_come_back_from_the_cohorts_file_and_are_in_its_fingerprint(by_kind, tmp_path):
    spec, records = by_kind()
    records = replace(records, stage=np.array(["", "I", "II"] * 133 + ["IV"]))
    found = prepared_by_kind(spec, records)
    cohort.save(found, tmp_path / "toy.parquet")

    again = cohort.load(tmp_path / "toy.parquet")

    assert_array_equal(again.label, found.label)
    assert_array_equal(again.stage, found.stage)
    fingerprints = {
        found.fingerprint,
        replace(found, label=None).fingerprint,
        replace(found, stage=None).fingerprint,
        replace(found, label=np.where(found.label == 2, 1, found.label)).fingerprint,
        replace(found, stage=np.where(found.stage == "IV", "III", found.stage)).fingerprint,
    }
    assert len(fingerprints) == 5


def test_a_retraining_learns_the_confirmed_classes_beside_the_old_ones(disease_of_classes) -> None:
    spec, old = disease_of_classes.spec, disease_of_classes.cohort
    values = {name: np.full(4, np.nan) for name in spec.columns} | {"age_years": np.array([50.0, 60, 70, 80])}
    label = np.array([0.0, 1, 2, 0])
    confirmed = Records(values, (label > 0) * 1.0, np.array(list("abcd")), np.full(4, NAN), label=label)

    found = cohort.retrained(
        spec, disease_of_classes.plan, old, confirmed, np.array(["train", "train", "test", "test"])
    )

    assert_array_equal(found.label[-4:], label)
    assert_array_equal(found.y[-4:], [0, 1, 1, 0])
    assert_array_equal(found.stage[-4:], [""] * 4)
    with pytest.raises(CohortError, match="class is known, of the others not"):
        cohort.retrained(spec, disease_of_classes.plan, old, replace(confirmed, label=None), np.array(["train"] * 4))

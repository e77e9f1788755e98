"""Each fault that is planted is named by its probe, and honest data passes every one of them."""

import json
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from configs.errors import ContractError, SpecError
from configs.settings import ROOT
from configs.spec import from_document, load_spec
from evidence import probes
from evidence.metrics import auroc
from features import build, cohort, records
from features.cohort import Cohort
from features.columns import check_record, check_table, translate_table
from models.predict import Predictor
from models.training import fit_family, train


@pytest.fixture(scope="module")
def lenient(document, disease_of, tmp_path_factory):
    """A disease whose contract is too wide to tell one unit from another, and its predictor."""
    wide = json.loads(json.dumps(document))
    wide["columns"]["cholesterol_mg_dl"]["range"] = [1, 1000]
    wide["columns"]["max_heart_rate_bpm"] |= {"unit": "kPa", "range": [1, 1400]}  # no rate has this unit: a test's own
    wide["candidates"] = ["logistic"]
    made = disease_of(wide, 400, 3)
    return made, Predictor(train(made.spec, made.plan, made.cohort, tmp_path_factory.mktemp("lenient") / "angina"))


def changed(predictor, test, X):
    return auroc(test.y, predictor.risk(X)) - auroc(test.y, predictor.risk(test.X))


def at(plan, *names):
    return [plan.names.index(name) for name in names]


def with_column(found, plan, name, values):
    X = found.X.copy()
    X[:, at(plan, name)[0]] = values
    return replace(found, X=X)


def of(parts, X, y=None, patient=None):
    """A cohort of these rows and nothing else."""
    n = len(parts)
    return Cohort(
        tuple(f"x{place}" for place in range(np.shape(X)[1])),
        np.array(X, np.float32),
        np.zeros(n) if y is None else np.array(y, float),
        np.array(parts),
        {},
        np.array(patient or [f"P{row}" for row in range(n)]),
        np.full(n, np.nan),
        {},
        {},
    )


def test_a_missing_column_takes_every_feature_that_reads_it_along(predictor, disease):
    test = disease.cohort.only("test")
    X = test.X.copy()
    X[:, at(disease.plan, "max_heart_rate_bpm", "cardiac.heart_rate_reserve_used")] = np.nan

    found = {change.name: change for change in probes.missing_value(predictor, disease.cohort)}

    assert found["max_heart_rate_bpm"].change == changed(predictor, test, X)
    assert "cardiac.heart_rate_reserve_used" not in found


def test_the_worst_missing_value_has_an_interval_and_is_none_that_the_contract_refuses(predictor, disease):
    found = probes.missing_value(predictor, disease.cohort)
    most = probes.worst(found)

    assert {change.name for change in found if change.refused} == {"age_years"}  # it is required
    assert most.change == min(change.change for change in found if change.name != "age_years")
    assert most.change < 0 and most.low <= most.change <= most.high
    assert [change.name for change in found if change.low is not None] == [most.name]


def test_a_unit_that_the_contract_can_tell_does_not_reach_the_model(predictor, disease):
    found = probes.unit_slip(predictor, disease.cohort)

    assert "cholesterol_mg_dl (mmol/L)" in [change.name for change in found]
    assert all(change.refused == 1 for change in found)
    assert probes.worst(found) is None


def test_a_unit_slip_is_what_the_same_quantity_reads_in_the_other_unit(lenient):
    made, predictor = lenient
    test = made.cohort.only("test")
    X = test.X.copy()
    X[:, at(made.plan, "cholesterol_mg_dl")] /= np.float32(38.665)  # mg/dL in a mmol/L of cholesterol, 386.65 g/mol

    (slip,) = [c for c in probes.unit_slip(predictor, made.cohort) if c.name == "cholesterol_mg_dl (mmol/L)"]

    assert slip.refused == 0
    assert slip.change == pytest.approx(changed(predictor, test, X), abs=1e-3)


def test_a_slipped_value_out_of_range_is_missing_and_its_definition_is_computed_anew(lenient):
    made, predictor = lenient
    test = made.cohort.only("test")
    rate, age, used = at(made.plan, "max_heart_rate_bpm", "age_years", "cardiac.heart_rate_reserve_used")
    X = test.X.copy()
    read = X[:, rate] / 0.133322
    X[:, rate] = np.where(read <= 1400, read, np.nan)
    X[:, used] = X[:, rate] / (220 - X[:, age])

    (slip,) = [c for c in probes.unit_slip(predictor, made.cohort) if c.name == "max_heart_rate_bpm (mm[Hg])"]

    assert slip.change == pytest.approx(changed(predictor, test, X), abs=1e-9)
    assert slip.refused == pytest.approx(np.nanmean(np.where(np.isnan(read), np.nan, read > 1400)))
    assert 0 < slip.refused < 1


def test_a_slipped_value_below_detection_counts_as_the_contract_says(lenient):
    made, predictor = lenient
    rule = {"below_detection": {"limit": 5, "counts_as": 3.5}}
    document = json.loads(json.dumps(made.spec.document))
    document["columns"]["cholesterol_mg_dl"] |= rule
    test = made.cohort.only("test")
    (position,) = at(made.plan, "cholesterol_mg_dl")
    X = test.X.copy()
    X[:, position] /= np.float32(38.665)
    X[X[:, position] < 5, position] = 3.5
    predictor = SimpleNamespace(**vars(predictor), risk=predictor.risk)
    predictor.spec = from_document(document, "toy.yaml")

    (slip,) = [c for c in probes.unit_slip(predictor, made.cohort) if c.name == "cholesterol_mg_dl (mmol/L)"]

    assert slip.refused == 0
    assert slip.change == pytest.approx(changed(predictor, test, X), abs=1e-9)


def test_noise_is_the_same_with_the_same_seed_and_costs_a_sound_model_little(predictor, disease):
    found = probes.noise(predictor, disease.cohort)

    assert found == probes.noise(predictor, disease.cohort)
    assert found.low <= found.change <= found.high
    assert -0.03 < found.change < 0.03 and found.low < found.high


def test_nobody_is_spoilt_by_being_looked_at(predictor, disease):
    before = disease.cohort.fingerprint

    found = probes.robustness(predictor, disease.cohort)

    assert list(found) == ["missing", "unit slip", "noise"]
    assert disease.cohort.fingerprint == before


def test_without_both_classes_nothing_is_the_worst(predictor, disease):
    well = disease.cohort.where((disease.cohort.part != "test") | (disease.cohort.y == 0))

    assert probes.worst(probes.missing_value(predictor, well)) is None
    assert np.isnan(probes.noise(predictor, well).change)


def test_the_outcome_scaled_with_noise_is_named_as_a_feature_that_tells_all(disease):
    dice = np.random.default_rng(5)
    leak = 100 - 20 * disease.cohort.y + dice.normal(0, 2, len(disease.cohort))
    name, alone = probes.single_feature(
        disease.plan, with_column(disease.cohort, disease.plan, "cholesterol_mg_dl", leak)
    )[0]

    assert name == "cholesterol_mg_dl"
    assert alone > probes.LEAKS


def test_a_value_that_only_the_sick_have_is_named(disease):
    dice = np.random.default_rng(6)
    told = np.where(disease.cohort.y == 1, dice.normal(200, 30, len(disease.cohort)), np.nan)
    found = dict(
        probes.single_feature(disease.plan, with_column(disease.cohort, disease.plan, "cholesterol_mg_dl", told))
    )

    assert found["cholesterol_mg_dl"] == 1


@pytest.mark.parametrize("high", [200, -200])
def test_a_value_that_the_sick_have_out_of_the_ordinary_or_not_at_all_is_named(disease, high):
    half = np.where(np.arange(len(disease.cohort)) % 2 == 0, np.nan, high)
    told = np.where(disease.cohort.y == 1, half, 0)
    found = dict(
        probes.single_feature(disease.plan, with_column(disease.cohort, disease.plan, "cholesterol_mg_dl", told))
    )

    assert found["cholesterol_mg_dl"] == 1


def test_a_category_that_is_the_outcome_is_named_whatever_its_levels_are_called(disease):
    sick = np.random.default_rng(7).choice([0.0, 2.0], len(disease.cohort))
    leak = np.where(disease.cohort.y == 1, sick, np.where(sick == 0, 1.0, np.nan))
    found = dict(probes.single_feature(disease.plan, with_column(disease.cohort, disease.plan, "pain", leak)))

    assert found["pain"] == 1


def test_a_category_of_pure_chance_tells_nothing_of_the_test_part(disease):
    dice = np.random.default_rng(8)
    found = dict(
        probes.single_feature(
            disease.plan, with_column(disease.cohort, disease.plan, "pain", dice.integers(0, 3, len(disease.cohort)))
        )
    )

    assert abs(found["pain"] - 0.5) < 0.15


def test_the_best_honest_feature_that_we_know_is_no_leak():
    from sklearn.datasets import load_breast_cancer
    from sklearn.metrics import roc_auc_score

    frame = load_breast_cancer(as_frame=True).frame
    spec = load_spec("breast_cancer", ROOT / "configs")
    table = {name: frame[name].tolist() for name in frame}
    found, _ = check_table(spec, table, translate_table(spec, table))
    plan = build.plan(spec)

    ranked = probes.single_feature(plan, cohort.prepare(spec, plan, found, {}))

    assert ranked[0][0] == "worst_perimeter"
    assert ranked[0][1] == pytest.approx(roc_auc_score(1 - frame["target"], frame["worst perimeter"]), abs=1e-12)
    assert 0.97 < ranked[0][1] < probes.LEAKS


def test_an_honest_cohort_shares_nobody_between_its_parts(disease):
    assert probes.shared_patients(disease.cohort) == 0
    assert probes.shared_rows(disease.cohort) == 0
    assert probes.distinct_rows(disease.cohort) == len(disease.cohort)
    assert probes.shared_by_chance(disease.cohort) < 0.01
    assert max(alone for _, alone in probes.single_feature(disease.plan, disease.cohort)) < probes.LEAKS


def planted(disease, **as_of):
    """The cohort with its first training row entered once more, in the test part."""
    whole = disease.cohort
    row = np.flatnonzero(whole.part == "train")[0]
    twice = whole.where(np.append(np.arange(len(whole)), row))
    for key, value in {"part": "test", **as_of}.items():
        array = getattr(twice, key).copy()
        array[-1] = value
        twice = replace(twice, **{key: array})
    return twice


def test_a_patient_on_both_sides_of_the_split_is_counted(disease):
    found = planted(disease)

    assert probes.shared_patients(found) == 1
    assert probes.shared_rows(found) == 1


def test_a_patient_entered_again_under_another_name_is_found_by_the_row(disease):
    found = planted(disease, patient="somebody else")

    assert probes.shared_patients(found) == 0
    assert probes.shared_rows(found) == 1
    assert probes.shared_by_chance(found) < 0.01


@pytest.mark.parametrize("as_of", [{"part": "train"}, {"y": 7.0}])
def test_a_row_of_the_same_part_or_of_another_outcome_is_not_shared(disease, as_of):
    assert probes.shared_rows(planted(disease, **as_of)) == 0


def test_rows_of_two_present_values_are_coincidence():
    nan = np.nan

    assert probes.shared_rows(of(["train", "test"], [[1, 2, nan, nan]] * 2)) == 0
    assert probes.shared_rows(of(["train", "test"], [[1, 2, 3, nan]] * 2)) == 1


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(cohort.PARTS)), min_size=1, max_size=20), st.randoms())
def test_who_is_shared_does_not_depend_on_the_order_of_rows(rows, dice):
    mixed = dice.sample(rows, len(rows))
    found = [
        of([part for _, part in order], [[who] * 3 for who, _ in order], patient=[f"P{who}" for who, _ in order])
        for order in (rows, mixed)
    ]
    expected = sum(len({part for other, part in rows if other == who}) > 1 for who in range(6))

    assert [probes.shared_patients(one) for one in found] == [expected, expected]
    assert [probes.shared_rows(one) for one in found] == [expected, expected]


def test_as_many_rows_are_alike_by_chance_as_the_probe_expects():
    dice = np.random.default_rng(9)
    parts = ["train"] * 40 + ["test"] * 15 + ["external"] * 10
    alike, expected = [], []
    for _ in range(300):
        X, y = dice.choice(3, (65, 3), p=[0.6, 0.3, 0.1]), dice.integers(0, 2, 65)
        rows = np.column_stack([X, y])
        same = (rows[:, None] == rows[None]).all(axis=2)
        apart = np.array(parts)[:, None] != np.array(parts)[None]
        alike.append((same & apart).sum() / 2)
        expected.append(probes.shared_by_chance(of(parts, X, y)))

    assert_allclose(np.mean(expected), np.mean(alike), rtol=0.03)


def test_patients_without_a_history_are_alike_by_chance_and_those_with_one_are_not():
    dice, nan = np.random.default_rng(9), np.nan
    parts = ["train", "test"] * 200
    history = dice.normal(size=(400, 6))
    X = np.column_stack([dice.integers(20, 40, 400), dice.integers(0, 2, 400), dice.integers(0, 5, 400), history])
    bare = X.copy()
    bare[:200, 3:] = nan  # whoever has no history misses all of it

    told = np.nan_to_num(bare, nan=-1.0)
    apart = np.array(parts)[:, None] != np.array(parts)[None]
    pairs = ((told[:, None] == told[None]).all(axis=2) & apart).sum() / 2

    assert probes.shared_by_chance(of(parts, X)) < 1e-6
    assert pairs > 30
    assert probes.shared_by_chance(of(parts, bare)) == pytest.approx(pairs, rel=0.3)


def test_a_value_that_is_missing_for_one_class_alone_is_found_without_any_value(disease, task_of):
    """As in a table whose benign tumours had one test less."""
    fit = partial(fit_family, "boosted", task=task_of(disease.plan))
    X = disease.cohort.X.copy()
    X[disease.cohort.y == 0, disease.plan.names.index("cholesterol_mg_dl")] = np.nan

    value, ends = probes.absence(replace(disease.cohort, X=X), fit)
    by_chance, around = probes.absence(disease.cohort, fit)

    assert value > 0.95
    assert ends is None or ends[0] > 0.9
    assert around[0] < 0.5 < around[1]
    assert by_chance < 0.65


def test_where_nothing_is_missing_absence_tells_nothing(disease, task_of):
    full = replace(disease.cohort, X=np.nan_to_num(disease.cohort.X))

    assert probes.absence(full, partial(fit_family, "logistic", task=task_of(disease.plan))) is None


@pytest.mark.parametrize("seed", range(5))
def test_permuted_labels_teach_nothing(disease, seed, task_of):
    found = probes.label_permutation(
        disease.cohort, lambda part: fit_family("logistic", part, task_of(disease.plan)), seed
    )

    assert found.low < found.auroc < found.high
    assert found.low + found.high == pytest.approx(1)


def test_one_strong_direction_does_not_make_chance_look_like_knowledge(disease, task_of):
    strong = disease.cohort
    for name in disease.plan.names:
        if not dict(zip(disease.plan.names, disease.plan.features, strict=True))[name].categories:
            spread = np.random.default_rng(1).normal(0, 0.3, len(strong))
            strong = with_column(strong, disease.plan, name, 50 + 10 * strong.y + spread)

    found = [
        probes.label_permutation(strong, lambda part: fit_family("boosted", part, task_of(disease.plan)), seed)
        for seed in range(2)
    ]

    assert all(one.low < one.auroc < one.high for one in found)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_fit_that_knows_the_true_labels_is_caught(disease, share, task_of):
    learned = disease.cohort.only("train")

    def cheat(part):
        remembered = np.random.default_rng(2).random(len(part)) < share
        return fit_family("logistic", replace(part, y=np.where(remembered, learned.y, part.y)), task_of(disease.plan))

    found = probes.label_permutation(disease.cohort, cheat, 17)

    assert found.auroc > found.high


def test_the_interval_of_chance_holds_95_of_100_risks_that_know_nothing(disease, task_of):
    y = disease.cohort.only("test").y
    dice = np.random.default_rng(3)
    found = probes.label_permutation(
        disease.cohort, lambda part: fit_family("logistic", part, task_of(disease.plan)), 17
    )
    drawn = np.array([auroc(y, dice.random(len(y))) for _ in range(4000)])

    assert ((drawn > found.low) & (drawn < found.high)).mean() == pytest.approx(0.95, abs=0.015)


@pytest.fixture
def timed(toy_document, toy_table):
    """The toy disease with the time of its cholesterol, and its table: three values are of the day after."""
    toy_document["at"] = "seen"
    toy_document["columns"]["cholesterol_mg_dl"]["measured_at"] = "drawn"
    table = toy_table(400, 1)
    table["chol"][:6] = [200, 200, 200, 200, 200, None]
    table["seen"] = ["2026-03-01T12:00:00"] * 400
    table["drawn"] = ["2026-03-01T11:00:00Z"] * 400
    table["drawn"][:6] = [
        *["2026-03-02", "2026-03-01T12:00:01", "2026-03-01T12:00:00-01:00"],
        *["2026-03-01T12:00:00", "2026-03-01T12:30:00+01:00"],
        "2026-03-02",
    ]
    return toy_document, table


def test_values_from_after_the_prediction_are_counted_all_the_way_to_the_cohort(timed, tmp_path):
    spec, table = from_document(timed[0], "toy.yaml"), timed[1]
    found, refusals = check_table(spec, table, translate_table(spec, table))
    records.save(found, spec, {}, tmp_path / "records.parquet")
    kept, dropped = records.load(spec, tmp_path / "records.parquet")
    cohort.save(cohort.prepare(spec, build.plan(spec), kept, dropped), tmp_path / "cohort.parquet")

    assert not refusals
    assert probes.measured_later(cohort.load(tmp_path / "cohort.parquet").only("test")) == (3, "cholesterol_mg_dl")


def test_values_from_before_count_nothing_and_that_is_not_the_same_as_not_knowing(timed, disease):
    spec, table = from_document(timed[0], "toy.yaml"), timed[1] | {"drawn": ["2026-01-01"] * 400}
    found, _ = check_table(spec, table, translate_table(spec, table))

    assert probes.measured_later(cohort.prepare(spec, build.plan(spec), found, {})) == (0, "cholesterol_mg_dl")
    assert probes.measured_later(disease.cohort) is None


@pytest.mark.parametrize("cell", ["John Smith", None, 5, float("nan")])
def test_a_value_whose_time_nobody_can_read_is_refused_without_being_told(timed, cell):
    spec, table = from_document(timed[0], "toy.yaml"), timed[1]
    table["drawn"][3] = table["drawn"][5] = cell  # row 6 has no value, and needs no time

    found, refusals = check_table(spec, table, translate_table(spec, table))

    assert [(one.row, one.column, one.code) for one in refusals] == [(4, "cholesterol_mg_dl", "not_a_time")]
    assert "Smith" not in refusals[0].message
    assert len(found) == 399


def test_a_source_without_the_promised_times_is_refused(timed):
    spec, table = from_document(timed[0], "toy.yaml"), timed[1]
    del table["drawn"]

    with pytest.raises(ContractError, match="no column 'drawn'"):
        translate_table(spec, table)


def test_a_time_of_measurement_without_a_time_of_prediction_is_no_promise(timed):
    del timed[0]["at"]

    with pytest.raises(SpecError, match=r"cholesterol_mg_dl\.measured_at` needs `at`"):
        from_document(timed[0], "toy.yaml")


def test_a_request_carries_no_time_of_measurement(timed):
    spec = from_document(timed[0], "toy.yaml")

    assert check_record(spec.columns, {"age_years": 50, "sex": "male", "cholesterol_mg_dl": 200}).values

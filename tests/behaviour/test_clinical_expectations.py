"""What a clinician would demand of the heart model, whichever family it is of."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from configs.settings import ROOT
from configs.spec import from_document, load_spec
from features import build, cohort, columns, units
from features.synthetic import draw
from models.predict import Predictor
from models.training import train

Risk = Callable[..., list[float]]

WELL = {
    "age_years": 30,
    "sex": "female",
    "site": "cleveland",
    "chest_pain": "non_anginal",
    "resting_systolic_bp_mmhg": 112,
    "cholesterol_mg_dl": 180,
    "fasting_glucose_above_120_mg_dl": False,
    "resting_ecg": "normal",
    "max_heart_rate_bpm": 190,
    "exercise_angina": False,
    "st_depression_mm": 0,
}


@pytest.fixture(scope="session")
def predictors(heart_table, tmp_path_factory) -> dict[str, Predictor]:
    """The heart disease, trained on its real patients, once with each family alone."""
    document = load_spec("heart_disease", ROOT / "configs").document
    made = {}
    for family in ("logistic", "boosted"):
        spec = from_document({**copy.deepcopy(document), "candidates": [family]}, "heart_disease.yaml")
        records, refusals = columns.check_table(spec, heart_table, columns.translate_table(spec, heart_table))
        assert not refusals
        plan = build.plan(spec)
        patients = cohort.prepare(spec, plan, records, {})
        made[family] = Predictor(train(spec, plan, patients, tmp_path_factory.mktemp(family) / "heart_disease"))
    return made


@pytest.fixture(params=["logistic", "boosted"])
def predictor(request: pytest.FixtureRequest, predictors: dict[str, Predictor]) -> Predictor:
    return predictors[request.param]


def risks(predictor: Predictor, *records: dict[str, Any]) -> list[float]:
    return predictor.risk(predictor.features([predictor.check(record) for record in records])).tolist()


@pytest.fixture(scope="session")
def patients(predictors: dict[str, Predictor]) -> list[dict[str, Any]]:
    """Fifty invented patients of every kind, some with values missing."""
    return draw(predictors["logistic"].spec.columns, 50, seed=2)


def test_deeper_st_depression_never_lowers_the_risk(predictors, patients):
    for patient in patients:
        rising = risks(predictors["logistic"], *({**patient, "st_depression_mm": mm} for mm in (0, 0.5, 1, 2, 3, 4)))
        assert rising == sorted(rising)
        assert rising[-1] > rising[0]


def test_angina_on_exercise_never_lowers_the_risk(predictors, patients):
    for patient in patients:
        without, with_it = risks(
            predictors["logistic"], *({**patient, "exercise_angina": found} for found in (False, True))
        )
        assert with_it > without


def test_a_higher_heart_rate_reached_on_exercise_never_raises_the_risk(predictors, patients):
    for patient in patients:
        rates = (90, 110, 130, 150, 170, 190)
        falling = risks(predictors["logistic"], *({**patient, "max_heart_rate_bpm": rate} for rate in rates))
        assert falling == sorted(falling, reverse=True)


def test_a_man_is_at_no_lower_risk_than_a_woman_with_the_same_findings(predictors, patients):
    for patient in patients:
        woman, man = risks(predictors["logistic"], *({**patient, "sex": sex} for sex in ("female", "male")))
        assert man > woman


@pytest.mark.parametrize(
    ("field", "unit", "value"), [("cholesterol_mg_dl", "mmol/L", 6.3), ("resting_systolic_bp_mmhg", "kPa", 19.3)]
)
def test_another_unit_gives_the_same_answer(predictor, patients, field, unit, value):
    column = predictor.spec.columns[field]
    ours = units.conversion(unit, column.unit, column.loinc)(value)

    for patient in patients[:10]:
        here, there = risks(predictor, {**patient, field: ours}, {**patient, field: {"value": value, "unit": unit}})
        assert here == there


def test_milligrams_and_millimoles_of_cholesterol_differ_by_their_known_factor(predictor):
    """1 mmol/L of cholesterol is 38.67 mg/dL: molar mass 386.65 g/mol."""
    found = units.conversion("mmol/L", "mg/dL", predictor.spec.columns["cholesterol_mg_dl"].loinc)
    assert found(1) == pytest.approx(38.67, abs=0.01)


def test_a_well_patient_of_thirty_is_ruled_out(predictor):
    (risk,) = risks(predictor, WELL)

    assert risk < 0.15
    assert risk < predictor.bundle.thresholds["rule_out"]


def test_a_sick_patient_of_seventy_is_alerted(predictor):
    sick = {
        **WELL,
        "age_years": 70,
        "sex": "male",
        "chest_pain": "asymptomatic",
        "max_heart_rate_bpm": 100,
        "exercise_angina": True,
        "st_depression_mm": 3,
    }

    (risk,) = risks(predictor, sick)

    assert risk > predictor.bundle.thresholds["alert"]


@pytest.mark.parametrize("family", ["logistic", "boosted"])
@pytest.mark.parametrize("age", [30, 55, 80])
@pytest.mark.parametrize("sex", ["female", "male"])
def test_of_somebody_of_whom_nothing_was_measured_no_band_is_told(predictors, family, age, sex):
    """Whatever the risk: boosted takes a woman's missing values for health, 0.036 at 30 and 0.045 at 55."""
    predictor = predictors[family]
    record = predictor.check({"age_years": age, "sex": sex})

    (told,) = predictor.predictions([record], predictor.risk(predictor.features([record])))

    assert told.band is None
    assert told.abstained == "8 values are missing, at most 6 may be"
    assert 0.02 < told.risk < 0.95


def test_nothing_measured_is_not_the_risk_of_a_well_patient(predictor):
    """A missing value must not look like a normal one."""
    nothing, well = risks(predictor, {"age_years": WELL["age_years"], "sex": WELL["sex"]}, WELL)

    assert nothing > well

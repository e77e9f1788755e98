"""The golden patients: invented, readable, and the features that a person can check by hand."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from configs.settings import ROOT
from configs.spec import enabled, load_spec, read_yaml
from features.build import build, plan
from features.columns import check_record

FILES = sorted((ROOT / "data" / "golden").glob("*.yaml"))
PATIENTS = [
    pytest.param(file.stem, patient, id=f"{file.stem}-{number}")
    for file in FILES
    for number, patient in enumerate(read_yaml(file, file.name)["patients"], start=1)
]


@pytest.mark.parametrize(("disease", "patient"), PATIENTS)
def test_a_golden_patient_has_the_features_that_were_worked_out_by_hand(disease, patient):
    spec = load_spec(disease, ROOT / "configs")
    record = check_record(spec.columns, patient["record"])

    X = build(plan(spec), {name: np.array([value]) for name, value in record.values.items()}, np.array([np.nan]))

    assert plan(spec).names == tuple(patient["features"])
    expected = [np.nan if value is None else value for value in patient["features"].values()]
    assert_array_equal(X[0], np.array(expected, dtype=np.float32))


def test_every_released_disease_has_three_golden_patients_that_say_why():
    assert {file.stem for file in FILES} >= set(enabled(ROOT / "configs"))
    for file in FILES:
        patients = read_yaml(file, file.name)["patients"]
        assert len(patients) >= 3
        assert all(patient["why"].strip() for patient in patients)

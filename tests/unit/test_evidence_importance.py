"""A feature is as important as what the model loses without it, and no more by chance than the shuffles say."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from configs.settings import ROOT
from configs.spec import load_spec
from evidence import importance
from evidence.metrics import auroc
from features.build import plan
from models.predict import Predictor
from models.training import train

SEED = 17


@pytest.fixture(scope="module")
def banded(document, disease_of, tmp_path_factory):
    """The invented disease, its model told the age and its band."""
    wide = json.loads(json.dumps(document)) | {"candidates": ["logistic"]}
    wide["features"].append("demographics.age_band")
    made = disease_of(wide, 400, 3)
    bundle = train(made.spec, made.plan, made.cohort, tmp_path_factory.mktemp("banded") / "angina")
    return made.cohort.only("test"), Predictor(bundle)


def test_what_decides_the_outcome_comes_before_what_does_not(predictor, disease):
    found = importance.permutation(predictor, disease.cohort.only("test"), SEED)
    drops = {one.name: one.drop for one in found}

    assert set(drops) == set(disease.plan.names)
    assert list(drops.values()) == sorted(drops.values(), reverse=True)
    assert drops["cholesterol_mg_dl"] < 0.02 < max(drops["age_years"], drops["pain"])
    assert all(one.low <= one.drop <= one.high for one in found)


def test_the_same_seed_gives_the_same_figures_and_the_patients_stay_as_they_were(predictor, disease):
    test = disease.cohort.only("test")
    before = test.fingerprint

    found = importance.permutation(predictor, test, SEED)

    assert found == importance.permutation(predictor, test, SEED)
    assert found != importance.permutation(predictor, test, SEED + 1)
    assert test.fingerprint == before


def test_features_of_one_column_are_shuffled_together_and_lose_more_than_each_alone(banded):
    test, predictor = banded
    names = predictor.plan.names
    found = {one.features: one.drop for one in importance.permutation(predictor, test, SEED)}

    def alone(name):
        generator = np.random.default_rng(1)
        drops = []
        for _ in range(importance.REPEATS):
            X = test.X.copy()
            X[:, names.index(name)] = generator.permutation(X[:, names.index(name)])
            drops.append(auroc(test.y, predictor.risk(test.X)) - auroc(test.y, predictor.risk(X)))
        return np.mean(drops)

    assert ("cardiac.heart_rate_reserve_used",) in found  # it reads two columns, and neither alone
    assert found["age_years", "demographics.age_band"] > max(alone("age_years"), alone("demographics.age_band"))


def test_it_agrees_with_scikit_learn(predictor, disease):
    from sklearn.inspection import permutation_importance

    test = disease.cohort.only("test")

    class Model:
        def fit(self, X, y):
            return self

    theirs = permutation_importance(
        Model(),
        test.X,
        test.y,
        scoring=lambda _, X, y: auroc(y, predictor.risk(X.astype(np.float32))),
        n_repeats=200,
        random_state=0,
    )
    ours = {one.name: one for one in importance.permutation(predictor, test, SEED)}

    for name, mean, spread in zip(disease.plan.names, theirs.importances_mean, theirs.importances_std, strict=True):
        assert ours[name].drop == pytest.approx(mean, abs=4 * spread / np.sqrt(importance.REPEATS) + 1e-9)


def test_what_is_drawn_is_plain_json_and_nothing_without_both_classes(predictor, disease):
    test = disease.cohort.only("test")
    drawn = importance.drawn(predictor, test, SEED)

    assert json.loads(json.dumps(drawn, allow_nan=False)) == drawn
    assert [one["feature"] for one in drawn] == [one.name for one in importance.permutation(predictor, test, SEED)]
    assert importance.drawn(predictor, test.where(test.y == 0), SEED) == []


def test_what_reads_the_same_arrays_is_shuffled_together_and_told_by_its_definitions():
    spec = load_spec("cancer_origin_simulated", ROOT / "configs")
    door = plan(spec)
    groups = importance._together(SimpleNamespace(spec=spec, plan=door))
    told = [importance.Importance(names, 0, 0, 0).name for names, _ in groups]

    assert sorted(place for _, places in groups for place in places) == list(range(len(door.names)))
    assert "methylation.cell_type_fractions.*, methylation.atlas_misfit" in told
    assert {"age_years", "sex", "cfdna.mitochondrial_share"} <= set(told)
    assert len(told) == 7

"""Contributions add up to what the model says, and say it of the right feature."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from configs.errors import BundleError
from models import explain
from models.family import family
from models.onnx import Graph, Session, Trees, read_model

EXPLAINED = ["logistic", "boosted"]


@pytest.fixture(scope="module")
def patients(disease):
    return disease.cohort.only("train")


@pytest.fixture(scope="module")
def learn(disease, patients, tmp_path_factory, task_of):
    """`learn(name, X, y, inputs)`: a family fitted, by default on the invented disease, and its model.onnx."""

    def make(name, X=patients.X, y=patients.y, inputs=disease.plan.features):
        fitted = family(name).fit(X, y, task_of(inputs, len(X)))
        path = tmp_path_factory.mktemp(name) / "model.onnx"
        fitted.export(path.parent)
        return fitted, path

    return make


@pytest.fixture(scope="module")
def models(learn, disease):
    """Each family's fitted model, its ONNX session, and what explains it."""
    learned = {name: learn(name) for name in EXPLAINED}
    return {
        name: (fitted, Session(path), explain.explainer(path, disease.plan.features))
        for name, (fitted, path) in learned.items()
    }


@pytest.fixture(scope="module")
def place(disease):
    return {feature.name: position for position, feature in enumerate(disease.plan.features)}


def assert_adds_up(session, explainer, X):
    """To 2e-6 of the log-odds: ONNX Runtime adds 120 trees up in float32. In risk that is less than 1e-6."""
    base, contributions = explainer.contributions(X)
    assert contributions.shape == X.shape
    assert np.isfinite(contributions).all()
    said, explained = session.log_odds(X), base + contributions.sum(axis=1)
    assert (np.abs(explained - said) <= 2e-6 * np.maximum(1, np.abs(said))).all()
    assert np.abs(1 / (1 + np.exp(-explained)) - 1 / (1 + np.exp(-said))).max() <= 1e-6


def thresholds(fitted, position):
    """Every value at which a tree splits this feature, as float32 and one step to either side."""
    if not hasattr(fitted.model, "_predictors") or position not in fitted.layout.numbers:
        return []
    column = fitted.layout.numbers.index(position)
    nodes = np.concatenate([predictor.nodes for (predictor,) in fitted.model._predictors])
    cut = nodes["num_threshold"][(nodes["is_leaf"] == 0) & (nodes["feature_idx"] == column)].astype(np.float32)
    return [float(value) for value in {*cut, *np.nextafter(cut, np.float32(-1e9)), *np.nextafter(cut, np.float32(1e9))}]


@pytest.mark.parametrize("name", EXPLAINED)
@given(data=st.data())
def test_contributions_sum_to_the_log_odds_of_any_row(models, disease, name, data):
    fitted, session, explainer = models[name]
    fields = []
    for position, feature in enumerate(disease.plan.features):
        if feature.categories:
            value = st.sampled_from(range(len(feature.categories)))
        else:
            value = st.floats(-1000, 1000, width=32)
            if name == "boosted":
                value |= st.sampled_from(thresholds(fitted, position))
        fields.append(st.just(np.nan) | value)

    X = np.array(data.draw(st.lists(st.tuples(*fields), min_size=1, max_size=8)), np.float32)

    assert_adds_up(session, explainer, X)


@pytest.mark.parametrize("name", EXPLAINED)
def test_contributions_sum_to_the_log_odds_of_every_patient(models, patients, name):
    _, session, explainer = models[name]

    assert_adds_up(session, explainer, patients.X)


def test_contributions_sum_on_every_threshold_of_every_tree(models, patients):
    fitted, session, explainer = models["boosted"]
    rows = []
    for position in fitted.layout.numbers:
        for value in thresholds(fitted, position):
            row = patients.X[len(rows) % len(patients)].copy()
            row[position] = value
            rows.append(row)
    assert len(rows) > 100

    assert_adds_up(session, explainer, np.array(rows))


@pytest.mark.parametrize("name", EXPLAINED)
def test_a_row_alone_is_explained_as_in_a_batch(models, patients, name):
    *_, explainer = models[name]

    _, together = explainer.contributions(patients.X)
    alone = np.concatenate([explainer.contributions(row[None, :])[1] for row in patients.X])

    assert_array_equal(alone, together)


@pytest.mark.parametrize("name", EXPLAINED)
def test_smoking_raises_a_smokers_risk_and_lowers_that_of_the_same_patient_who_does_not(models, patients, place, name):
    *_, explainer = models[name]
    smokes, abstains = patients.X.copy(), patients.X.copy()
    smokes[:, place["smoker"]], abstains[:, place["smoker"]] = 1, 0

    _, upward = explainer.contributions(smokes)
    _, downward = explainer.contributions(abstains)

    assert (upward[:, place["smoker"]] > 0).all()
    assert (downward[:, place["smoker"]] < 0).all()


def test_a_missing_value_of_a_linear_model_contributes_nothing(models, patients, place):
    *_, explainer = models["logistic"]  # no column was missing often enough to have a flag
    X = patients.X.copy()
    X[:, [place["pain"], place["cholesterol_mg_dl"]]] = np.nan

    _, contributions = explainer.contributions(X)

    assert (contributions[:, [place["pain"], place["cholesterol_mg_dl"]]] == 0).all()


def test_a_linear_models_base_is_the_patient_of_whom_nothing_is_known(models, patients):
    _, session, explainer = models["logistic"]
    unknown = np.full((1, patients.X.shape[1]), np.nan, np.float32)

    base, _ = explainer.contributions(unknown)

    assert base == pytest.approx(float(session.log_odds(unknown)[0]), abs=1e-12)


@pytest.mark.parametrize("name", EXPLAINED)
def test_an_absence_that_was_learned_from_contributes_to_its_own_feature(learn, disease, patients, place, name):
    """Cholesterol and pain were measured in half of the sick alone, so their absence speaks for health."""
    measured = (patients.y == 1) & (np.arange(len(patients)) % 2 == 0)
    X = patients.X.copy()
    for feature in ("cholesterol_mg_dl", "pain"):
        X[~measured, place[feature]] = np.nan
    _, path = learn(name, X)
    explainer = explain.explainer(path, disease.plan.features)

    _, contributions = explainer.contributions(X)

    absent = contributions[~measured]
    assert (absent[:, place["cholesterol_mg_dl"]] + absent[:, place["pain"]] < 0).all()
    assert_adds_up(Session(path), explainer, X)
    if name == "logistic":
        assert (absent[:, [place["cholesterol_mg_dl"], place["pain"]]] < 0).all()  # a flag each


def test_a_feature_that_no_tree_reads_contributes_exactly_nothing(learn, disease, patients, place):
    constant = patients.X.copy()
    constant[:, place["cholesterol_mg_dl"]] = 200
    _, path = learn("boosted", constant)
    explainer = explain.explainer(path, disease.plan.features)

    _, contributions = explainer.contributions(patients.X)

    assert (contributions[:, place["cholesterol_mg_dl"]] == 0).all()
    assert (contributions[:, place["age_years"]] != 0).any()


def test_a_model_that_learned_nothing_has_a_base_and_no_contributions(learn, disease, patients):
    few = slice(0, 20)  # too few for a tree to split
    _, path = learn("boosted", patients.X[few], patients.y[few])

    base, contributions = explain.explainer(path, disease.plan.features).contributions(patients.X)

    assert (contributions == 0).all()
    assert base == pytest.approx(float(Session(path).log_odds(patients.X)[0]), abs=1e-6)


@pytest.mark.parametrize("name", EXPLAINED)
@pytest.mark.parametrize("kept", [["age_years", "max_heart_rate_bpm"], ["pain", "smoker"]])
def test_numbers_alone_and_categories_alone_are_explained(learn, disease, patients, place, name, kept):
    places = [place[feature] for feature in kept]
    inputs, X = [disease.plan.features[position] for position in places], np.ascontiguousarray(patients.X[:, places])
    _, path = learn(name, X, inputs=inputs)

    assert_adds_up(Session(path), explain.explainer(path, inputs), X)


def test_the_trees_are_explained_as_shap_itself_explains_the_fitted_model(models, patients):
    """We call a private function of shap with trees that we read ourselves; this is its public door, and sklearn's."""
    fitted, _, explainer = models["boosted"]
    X = patients.X.copy()
    X[np.random.default_rng(5).random(X.shape) < 0.2] = np.nan
    encoded = fitted.layout.apply(X)
    ours = explainer.of_columns[0](encoded)  # before shap is imported as a whole

    import shap

    public = shap.TreeExplainer(fitted.model, feature_perturbation="tree_path_dependent")

    assert_allclose(ours, public.shap_values(encoded), rtol=0, atol=1e-7)
    assert explainer.bases[0] == pytest.approx(public.expected_value.item(), abs=1e-7)


def test_a_linear_contribution_is_the_log_odds_that_one_value_moves(models, patients, place):
    _, session, explainer = models["logistic"]
    without = patients.X.copy()
    without[:, place["age_years"]] = np.nan

    _, contributions = explainer.contributions(patients.X)

    moved = session.log_odds(patients.X) - session.log_odds(without)
    assert_allclose(contributions[:, place["age_years"]], moved, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", EXPLAINED)
def test_what_was_written_is_read_back(learn, name, patients):
    fitted, path = learn(name)

    model = read_model(path)

    assert model.encoding == fitted.layout
    assert model.width == fitted.width
    if isinstance(model, Trees):
        nodes = [predictor.nodes for (predictor,) in fitted.model._predictors]
        assert [tree.count.tolist() for tree in model.trees] == [node["count"].tolist() for node in nodes]
        assert {int(tree.count[0]) for tree in model.trees} == {len(patients)}
    else:
        assert_array_equal(model.filled_with, fitted.filled_with)
        assert_array_equal(model.flagged, fitted.flagged)


def test_the_counts_in_the_file_change_no_prediction(models, learn, patients, tmp_path):
    _, path = learn("boosted")

    assert_array_equal(Session(without_counts(path, tmp_path)).log_odds(patients.X), Session(path).log_odds(patients.X))


def test_trees_of_an_earlier_release_are_refused_with_the_reason(learn, disease, tmp_path):
    _, path = learn("boosted")

    with pytest.raises(BundleError, match=r"how many training patients passed each node.*Train again"):
        explain.explainer(without_counts(path, tmp_path), disease.plan.features)


def without_counts(path, folder):
    """The file as it was before it held the nodes' counts."""
    import onnx

    model = onnx.load(path)
    (node,) = (node for node in model.graph.node if node.op_type == "TreeEnsembleRegressor")
    (counts,) = (place for place, attribute in enumerate(node.attribute) if attribute.name == "nodes_hitrates")
    del node.attribute[counts]
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.mark.parametrize(
    ("attribute", "change"),
    [
        ("nodes_truenodeids", lambda ids: [0] * len(ids)),  # the walk down would not end
        ("nodes_falsenodeids", lambda ids: [number + 1000 for number in ids]),
        ("nodes_featureids", lambda ids: [1000] * len(ids)),
        ("nodes_hitrates", lambda counts: [0.0] * len(counts)),
        ("nodes_modes", lambda modes: [b"BRANCH_LT" if mode == b"BRANCH_LEQ" else mode for mode in modes]),
        ("target_weights", lambda weights: weights[1:]),
    ],
)
def test_trees_that_cannot_be_walked_are_refused_before_they_are(learn, disease, tmp_path, attribute, change):
    import onnx

    _, path = learn("boosted")
    model = onnx.load(path)
    (node,) = (node for node in model.graph.node if node.op_type == "TreeEnsembleRegressor")
    (found,) = (kept for kept in node.attribute if kept.name == attribute)
    found.CopyFrom(onnx.helper.make_attribute(attribute, change(onnx.helper.get_attribute_value(found))))
    onnx.save(model, tmp_path / "model.onnx")

    with pytest.raises(BundleError, match=r"model\.onnx"):
        explain.explainer(tmp_path / "model.onnx", disease.plan.features)


def test_another_graph_is_refused(disease, tmp_path):
    graph = Graph(len(disease.plan.features))
    graph.save(graph.node("ReduceSum", ["X", graph.constant(np.array([1]))], keepdims=1), False, tmp_path / "sum.onnx")
    (tmp_path / "text.onnx").write_bytes(b"no model")

    for name in ("sum.onnx", "text.onnx", "gone.onnx"):
        with pytest.raises(BundleError, match=f"{name}: neither a linear model nor trees"):
            explain.explainer(tmp_path / name, disease.plan.features)


def test_a_linear_graph_with_one_more_node_is_refused(learn, disease, tmp_path):
    import onnx

    _, path = learn("logistic")
    model = onnx.load(path)
    last = model.graph.node[-1]
    model.graph.node.insert(len(model.graph.node) - 1, onnx.helper.make_node("Neg", [last.input[0]], ["negative"]))
    model.graph.node[-1].input[0] = "negative"
    onnx.save(model, tmp_path / "model.onnx")

    with pytest.raises(BundleError, match="not the one that this release"):
        explain.explainer(tmp_path / "model.onnx", disease.plan.features)


@pytest.mark.parametrize("name", EXPLAINED)
def test_a_model_of_other_features_is_refused(learn, disease, name):
    _, path = learn(name)

    for inputs in (disease.plan.features[:-1], disease.plan.features[::-1]):
        with pytest.raises(BundleError, match="features in another order or coding"):
            explain.explainer(path, inputs)


@pytest.mark.parametrize("name", EXPLAINED)
def test_explaining_imports_neither_shap_as_a_whole_nor_pandas_nor_sklearn(learn, disease, patients, child, name):
    """In a process of its own, from a bundle's file: what the server does."""
    _, path = learn(name)
    code = """
import json, sys
from pathlib import Path
import numpy as np
from configs.spec import from_document
from features import build
from models import explain
plan = build.plan(from_document(json.loads(sys.argv[2]), "angina.yaml"))
base, found = explain.explainer(Path(sys.argv[1]), plan.features).contributions(
    np.array(json.loads(sys.argv[3]), np.float32)
)
heavy = {"pandas", "sklearn", "numba", "mlflow", "shap", "scipy", "onnxruntime"}
print(json.dumps([base, found.tolist(), sorted(heavy & set(sys.modules))]))
"""
    X = np.nan_to_num(patients.X[:3])
    process = child(code, path, json.dumps(disease.spec.document), json.dumps(X.tolist()))

    out, _ = process.communicate(timeout=60)

    base, found, imported = json.loads(out)
    here = explain.explainer(path, disease.plan.features).contributions(X)
    assert imported == []
    assert_array_equal(np.array(found), here[1])
    assert base == here[0]


@pytest.fixture(scope="module")
def of_classes(disease_of_classes, tmp_path_factory, task_of):
    """Each family's fitted model of three classes, its ONNX session, and what explains it."""
    made, patients = {}, disease_of_classes.cohort.only("train")
    for name in EXPLAINED:
        fitted = family(name).fit(patients.X, patients.label, task_of(disease_of_classes.plan, len(patients)))
        path = tmp_path_factory.mktemp("of classes") / "model.onnx"
        fitted.export(path.parent)
        made[name] = fitted, Session(path), explain.explainer(path, disease_of_classes.plan.features), path
    return made


@pytest.mark.parametrize("name", EXPLAINED)
def test_each_classs_contributions_sum_to_its_own_log_odds(of_classes, disease_of_classes, name):
    _, session, explainer, _ = of_classes[name]
    X = disease_of_classes.cohort.X.copy()
    X[np.random.default_rng(5).random(X.shape) < 0.2] = np.nan

    told = explainer.by_output(X)

    assert len(told) == 3
    for (base, contributions), said in zip(told, session.log_odds(X).T, strict=True):
        assert contributions.shape == X.shape
        explained = base + contributions.sum(axis=1)
        assert (np.abs(explained - said) <= 2e-6 * np.maximum(1, np.abs(said))).all()


@pytest.mark.parametrize("name", EXPLAINED)
def test_pain_at_rest_speaks_for_the_unstable_kind_more_than_for_the_stable_one(
    of_classes, disease_of_classes, place, name
):
    *_, explainer, _ = of_classes[name]
    patients = disease_of_classes.cohort.only("train")
    at_rest = patients.X[patients.X[:, place["pain"]] == 2]

    none, stable, unstable = (found[:, place["pain"]] for _, found in explainer.by_output(at_rest))

    assert (unstable > stable).all() and (unstable > none).all()


@pytest.mark.parametrize("name", EXPLAINED)
def test_a_model_of_classes_has_no_one_explanation(of_classes, patients, name):
    *_, explainer, _ = of_classes[name]

    with pytest.raises(BundleError, match="3 classes explains each class by itself"):
        explainer.contributions(patients.X)


def test_of_one_event_the_only_output_is_the_event(models, patients):
    *_, explainer = models["logistic"]

    ((base, contributions),) = explainer.by_output(patients.X)

    assert base == explainer.contributions(patients.X)[0]
    assert_array_equal(contributions, explainer.contributions(patients.X)[1])


def test_the_trees_of_a_class_are_explained_as_shap_itself_explains_them(of_classes, disease_of_classes):
    fitted, _, explainer, _ = of_classes["boosted"]
    encoded = fitted.layout.apply(disease_of_classes.cohort.X[:100])
    ours = [of_columns(encoded) for of_columns in explainer.of_columns]

    import shap

    public = shap.TreeExplainer(fitted.model, feature_perturbation="tree_path_dependent")

    assert_allclose(np.stack(ours, axis=-1), public.shap_values(encoded), rtol=0, atol=1e-7)
    assert_allclose(explainer.bases, public.expected_value, rtol=0, atol=1e-7)


def test_trees_that_are_not_the_classes_in_turn_are_refused(of_classes, disease_of_classes, tmp_path):
    import onnx

    model = onnx.load(of_classes["boosted"][3])
    (node,) = (node for node in model.graph.node if node.op_type == "TreeEnsembleRegressor")
    (found,) = (kept for kept in node.attribute if kept.name == "target_ids")
    turned = [(number + 1) % 3 for number in onnx.helper.get_attribute_value(found)]
    found.CopyFrom(onnx.helper.make_attribute("target_ids", turned))
    onnx.save(model, tmp_path / "model.onnx")

    with pytest.raises(BundleError, match=r"model\.onnx"):
        explain.explainer(tmp_path / "model.onnx", disease_of_classes.plan.features)

"""From a record to a risk, the same way for one and for many; a bundle that fails its self-test answers nobody."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from configs.errors import BundleError, RecordError
from features.synthetic import draw, edges
from models.bundle import load
from models.device import Device, HostMemory, Watcher
from models.predict import CARD_TOLERANCE, TOLERANCE, Prediction, Predictor

PATIENT = {"age_years": 61, "max_heart_rate_bpm": 140, "cholesterol_mg_dl": 232.0, "pain": "rest", "smoker": True}


@pytest.fixture
def forge(trained, reseal, tmp_path):
    """`forge(name, change)`: the trained bundle with one JSON changed and every hash made to agree again."""

    def make(name, change, bundle=trained):
        folder = Path(shutil.copytree(bundle.folder, tmp_path / "forged"))
        document = json.loads((folder / name).read_text())
        changed = change(document)
        (folder / name).write_text(json.dumps(document if changed is None else changed))
        reseal(folder)
        return load(folder)

    return make


def records(predictor, n=60, seed=4):
    columns = predictor.spec.columns
    return [predictor.check(record) for record in [*edges(columns), *draw(columns, n, seed)]]


def test_a_patients_answer(predictor, trained):
    record = predictor.check(PATIENT)
    risk = predictor.risk(predictor.features([record]))

    (answer,) = predictor.predictions([record], risk)

    assert answer == Prediction(float(risk[0]), "alert", [])
    assert answer.risk >= trained.thresholds["alert"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 17, 64])
def test_batches_equal_one_by_one_to_the_bit(predictor, size):
    checked = records(predictor)
    X = predictor.features(checked)
    one_by_one = np.concatenate([predictor.risk(predictor.features([record])) for record in checked])

    assert_array_equal(
        np.concatenate([predictor.risk(X[start : start + size]) for start in range(0, len(X), size)]), one_by_one
    )


def test_the_features_of_a_request_are_those_of_the_cohort(predictor, disease):
    patients = disease.cohort.only("test")
    asked = [
        predictor.check(
            {
                "age_years": float(row[0]),
                "max_heart_rate_bpm": None if np.isnan(row[1]) else float(row[1]),
                "cholesterol_mg_dl": None if np.isnan(row[2]) else float(row[2]),
                "pain": None if np.isnan(row[4]) else ["none", "exertion", "rest"][int(row[4])],
                "smoker": None if np.isnan(row[5]) else bool(row[5]),
            }
        )
        for row in patients.X
    ]
    assert_array_equal(predictor.features(asked), patients.X)


def test_no_records_have_no_risks(predictor):
    assert predictor.risk(np.empty((0, 6), np.float32)).shape == (0,)


def test_an_answer_names_what_was_missing_of_what_the_model_reads(predictor):
    record = predictor.check({"age_years": 61, "cholesterol_mg_dl": 0})

    (answer,) = predictor.predictions([record], predictor.risk(predictor.features([record])))

    assert answer.missing == ["max_heart_rate_bpm", "cholesterol_mg_dl", "pain", "smoker"]  # and not `site`


def test_another_unit_gives_the_same_risk(predictor):
    plain = predictor.check(PATIENT)
    other = predictor.check({**PATIENT, "cholesterol_mg_dl": {"value": 6.0003, "unit": "mmol/L"}})
    written = predictor.check({**PATIENT, "cholesterol_mg_dl": {"value": 232.0, "unit": "mg/dL"}})

    risk = predictor.risk(predictor.features([plain, written, other]))
    assert risk[0] == risk[1]
    assert risk[2] == pytest.approx(risk[0], abs=1e-3)


def test_a_record_that_breaks_the_contract_is_refused(predictor):
    with pytest.raises(RecordError, match="lactate"):
        predictor.check({**PATIENT, "lactate": 2})


def test_the_bundle_passes_its_own_self_test(trained):
    assert len(trained.selftest["cases"]) >= 10
    Predictor(trained)


def test_a_recorded_risk_that_was_changed_is_refused(forge):
    def change(selftest):
        selftest["cases"][3]["risk"] += 1e-5

    with pytest.raises(BundleError, match=r"self-test: a risk lies 1e-05 from the recorded one"):
        Predictor(forge("selftest.json", change))


def test_a_recorded_feature_that_was_changed_is_refused(forge):
    def change(selftest):
        selftest["cases"][3]["features"][0] += 1

    with pytest.raises(BundleError, match="self-test: this code computes other features"):
        Predictor(forge("selftest.json", change))


def test_a_calibration_that_was_changed_is_refused(forge):
    with pytest.raises(BundleError, match="self-test"):
        Predictor(forge("calibration.json", lambda found: {**found, "intercept": found["intercept"] + 0.01}))


def test_a_spec_that_was_changed_is_refused(forge):
    with pytest.raises(BundleError, match="self-test"):
        Predictor(forge("spec.json", lambda spec: spec["features"].reverse()))


@pytest.mark.parametrize(
    "change",
    [
        lambda selftest: selftest["cases"].clear(),
        lambda selftest: selftest.pop("cases"),
        lambda selftest: selftest["cases"][0].pop("risk"),
        lambda selftest: selftest["cases"][0]["record"].update(age_years=999),
        lambda selftest: selftest["cases"][0]["features"].pop(),
        lambda selftest: selftest["cases"][0].update(risk=None),
        lambda selftest: selftest["cases"][0].update(risk=float("nan")),
        lambda selftest: [],
    ],
    ids=[
        "no cases",
        "no list",
        "no risk",
        "impossible record",
        "a feature short",
        "null risk",
        "NaN risk",
        "another shape",
    ],
)
def test_a_self_test_that_tests_nothing_or_cannot_be_run_is_refused(forge, change):
    with pytest.raises(BundleError):
        Predictor(forge("selftest.json", lambda selftest: [] if change(selftest) == [] else selftest))


def test_a_model_that_is_no_onnx_is_refused(trained, reseal, tmp_path):
    folder = Path(shutil.copytree(trained.folder, tmp_path / "forged"))
    (folder / "model.onnx").write_bytes(b"\x80\x04not a model")
    reseal(folder)

    with pytest.raises(BundleError, match=r"model\.onnx: ONNX Runtime cannot load it"):
        Predictor(load(folder))


def test_a_model_of_other_inputs_is_refused(trained, reseal, tmp_path):
    from models.onnx import Graph

    folder = Path(shutil.copytree(trained.folder, tmp_path / "forged"))
    graph = Graph(2)
    graph.save(graph.node("Gather", ["X", graph.constant(np.array([0]))], axis=1), False, folder / "model.onnx")
    reseal(folder)

    with pytest.raises(BundleError):
        Predictor(load(folder))


def test_a_model_that_answers_by_batch_size_is_refused(trained, reseal, tmp_path):
    """A graph whose answer holds its batch's mean: what a server would say depends on who else asks."""
    from models.onnx import Graph

    folder = Path(shutil.copytree(trained.folder, tmp_path / "forged"))
    graph = Graph(6)
    age = graph.node("Gather", ["X", graph.constant(np.array([0]))], axis=1)
    mean = graph.node("ReduceMean", [age, graph.constant(np.array([0]))], keepdims=1)
    graph.save(graph.node("Sub", [age, mean]), False, folder / "model.onnx")
    cases = json.loads((folder / "selftest.json").read_text())
    from models.onnx import Session

    X = np.array([[np.nan if v is None else v for v in case["features"]] for case in cases["cases"]], np.float32)
    for case, value in zip(
        cases["cases"], trained.calibration.risk(Session(folder / "model.onnx").log_odds(X)), strict=True
    ):
        case["risk"] = float(value)
    (folder / "selftest.json").write_text(json.dumps(cases))
    reseal(folder)

    with pytest.raises(BundleError, match=r"self-test: batches of|from the recorded one"):
        Predictor(load(folder))


def test_the_band_is_the_highest_point_reached(predictor):
    lowest, highest = next(iter(predictor.bundle.thresholds)), list(predictor.bundle.thresholds)[-1]
    low, high = predictor.bundle.thresholds[lowest], predictor.bundle.thresholds[highest]
    risks = np.array([0.0, np.nextafter(low, 0), low, np.nextafter(high, 0), high, 1.0])

    assert predictor.bands(risks, None) == [None, None, lowest, lowest, highest, highest]
    assert predictor.bands(risks, [None, None, None, None, "silent", None])[-2:] == [None, highest]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 17, 64])
def test_the_risks_of_classes_in_batches_equal_one_by_one_to_the_bit(predictor_of_classes, size):
    checked = records(predictor_of_classes)
    X = predictor_of_classes.features(checked)
    one_by_one = np.concatenate([predictor_of_classes.risks(X[[row]]) for row in range(len(X))])

    assert_array_equal(
        np.concatenate([predictor_of_classes.risks(X[start : start + size]) for start in range(0, len(X), size)]),
        one_by_one,
    )


def test_the_risk_of_a_model_of_classes_is_that_of_the_events_classes(predictor_of_classes):
    X = predictor_of_classes.features(records(predictor_of_classes))

    risks = predictor_of_classes.risks(X)

    assert risks.shape == (len(X), 3)
    assert np.abs(risks.sum(axis=1) - 1).max() <= 1e-12
    assert np.abs(risks[:, 1] + risks[:, 2] - predictor_of_classes.risk(X)).max() <= 1e-12
    assert_array_equal(predictor_of_classes.positive(risks), predictor_of_classes.risk(X))
    assert predictor_of_classes.risks(np.empty((0, 6), np.float32)).shape == (0, 3)
    assert predictor_of_classes.risk(np.empty((0, 6), np.float32)).shape == (0,)


def test_a_model_of_one_event_says_the_same_in_risks_and_risk(predictor):
    X = predictor.features(records(predictor))

    assert predictor.classes == ()
    assert_array_equal(predictor.risks(X), predictor.risk(X))


def test_an_answer_names_the_class_of_least_cost_and_each_ones_risk(predictor_of_classes):
    """A missed unstable angina costs 20 or 10, a false alarm 1 or 2: it is said long before it is the likeliest."""
    spec = predictor_of_classes.spec
    lax = replace(predictor_of_classes.bundle, spec=spec.model_copy(update={"uncertainty": None}), conformal=None)
    record = predictor_of_classes.check({**PATIENT, "age_years": 53, "pain": "exertion"})
    free = Predictor(lax)
    risks = free.risks(free.features([record]))

    (answer,) = free.predictions([record], risks)

    assert answer.risks == dict(zip(("none", "stable", "unstable"), risks[0].tolist(), strict=True))
    assert risks[0].argmax() == 1
    assert (answer.label, answer.set, answer.abstained) == ("unstable", None, None)


def test_where_the_rule_asks_for_one_label_no_class_is_named_of_several_and_the_band_stays(predictor_of_classes):
    checked = records(predictor_of_classes, 400)
    risks = predictor_of_classes.risks(predictor_of_classes.features(checked))

    answers = predictor_of_classes.predictions(checked, risks)

    told = [answer for answer in answers if answer.abstained is None]
    several = [answer for answer in told if answer.set == ["stable", "unstable"]]
    assert several and all(answer.label is None for answer in several)
    assert any(answer.band == "alert" for answer in several)
    assert all(answer.label is not None for answer in told if len(answer.set) == 1)
    silent = [answer for answer in answers if answer.abstained]
    assert silent and all((answer.band, answer.label) == (None, None) for answer in silent)
    assert any(answer.set == ["none", "stable"] for answer in silent)


@pytest.mark.parametrize(
    "change",
    [
        lambda case: case.update(risks=[case["risks"][0], case["risks"][2], case["risks"][1]]),
        lambda case: case["risks"].__setitem__(1, case["risks"][1] + 1e-5),
        lambda case: case["risks"].pop(),
        lambda case: case.pop("risks"),
        lambda case: case.update(risks=None),
    ],
    ids=["two classes exchanged", "a class's risk changed", "a class short", "no risks", "null"],
)
def test_a_self_test_of_other_risks_of_the_classes_is_refused(forge, predictor_of_classes, change):
    def all_cases(selftest):
        for case in selftest["cases"]:
            change(case)

    with pytest.raises(BundleError, match="self-test"):
        Predictor(forge("selftest.json", all_cases, predictor_of_classes.bundle))


def test_risks_of_classes_in_the_self_test_of_one_event_are_refused(forge):
    def all_cases(selftest):
        for case in selftest["cases"]:
            case["risks"] = [1 - case["risk"], case["risk"]]

    with pytest.raises(BundleError, match="self-test: its cases have risks of other classes"):
        Predictor(forge("selftest.json", all_cases))


def test_classes_in_another_order_than_the_model_has_are_refused(forge, predictor_of_classes):
    def turned(spec):
        classes = spec["outcome"]["classes"]
        spec["outcome"]["classes"] = dict(reversed(classes.items()))

    with pytest.raises(
        BundleError, match=r"calibration\.json is not a slope and the intercepts of unstable, stable, none"
    ):
        forge("spec.json", turned, predictor_of_classes.bundle)


def card(memory=None, budget=None):
    """A card, pretended on the CPU: any batch, and no promise about bits."""
    ignored = Watcher(lambda *_: None, lambda *_: None)
    return Device(torch.device("cpu"), memory or HostMemory(), budget, ignored, exact=False)


def asks_for(bundle, precision, tolerance):
    serving = bundle.spec.serving.model_copy(update={"precision": precision, "tolerance": tolerance})
    return replace(bundle, spec=bundle.spec.model_copy(update={"serving": serving}))


def test_a_table_uses_no_device_and_keeps_its_tolerance(trained):
    predictor = Predictor(trained)
    predictor.use(card())
    assert (predictor.network, predictor.tolerance, predictor.computed) == (False, TOLERANCE, None)


def test_a_network_is_computed_on_the_card_once_its_self_test_holds_there(trained, as_network):
    place, predictor = card(), Predictor(trained)
    X = predictor.features(records(predictor))
    alone = predictor.risk(X)
    assert predictor.computed is None

    predictor.use(place)

    assert predictor.computed == {"device": "cpu", "precision": "float32", "why": None}
    assert np.allclose(predictor.risk(X), alone, atol=CARD_TOLERANCE)
    sizes = {rows for _, rows in place._residents[as_network[0].network].peaks}
    assert {1, 2, 4, 8} <= sizes and max(sizes) >= predictor.spec.serving.max_batch


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_precision_is_used_where_the_self_test_stays_within_its_tolerance(trained, as_network, precision):
    predictor = Predictor(asks_for(trained, precision, 0.01))
    predictor.use(card())
    assert predictor.computed == {"device": "cpu", "precision": precision, "why": None}
    assert predictor.tolerance == 0.01


def test_a_precision_that_leaves_the_tolerance_gives_way_to_float32_and_it_is_said(trained, as_network):
    predictor = Predictor(asks_for(trained, "bf16", 1e-5))
    predictor.use(card())
    told = predictor.computed
    assert (told["device"], told["precision"]) == ("cpu", "float32")
    assert "in bf16 on cpu a risk of the self-test lies" in told["why"] and "limit 1e-05" in told["why"]


def test_a_card_that_computes_other_risks_is_not_used_and_the_cpu_answers_to_the_bit(trained, as_network):
    class Wrong(HostMemory):
        def copy(self, network):
            copy = super().copy(network)
            with torch.no_grad():
                copy.bias.add_(0.1)
            return copy

    predictor = Predictor(trained)
    X = predictor.features(records(predictor))
    alone = predictor.risk(X)

    predictor.use(card(Wrong()))

    assert predictor.computed["device"] == "cpu" and "in float32 on cpu" in predictor.computed["why"]
    assert predictor.risk(X).tobytes() == alone.tobytes()


def test_what_a_card_says_of_a_row_is_a_number_or_the_cpu_answers_and_it_is_counted(trained, as_network):
    """As in fp16, where a row that no case of the self-test resembles is beyond the largest number."""
    events = []
    place = Device(
        torch.device("cpu"), HostMemory(), None, Watcher(lambda *_: None, lambda *e: events.append(e)), False
    )
    predictor = Predictor(trained)
    X = predictor.features(records(predictor))
    alone = predictor.risk(X)
    predictor.use(place)
    with torch.inference_mode():
        place._residents[as_network[0].network].copy.bias.fill_(np.nan)

    assert predictor.risk(X).tobytes() == alone.tobytes()
    assert events == [(predictor.spec.name, "not_finite")]


def test_a_card_that_says_no_number_of_the_self_test_is_not_used(trained, as_network):
    class Broken(HostMemory):
        def copy(self, network):
            copy = super().copy(network)
            with torch.no_grad():
                copy.bias.fill_(np.nan)
            return copy

    predictor = Predictor(trained)
    predictor.use(card(Broken()))
    assert predictor.computed["device"] == "cpu" and "lies inf from" in predictor.computed["why"]


def test_a_risk_that_is_no_number_is_never_told(trained, as_network):
    predictor = Predictor(trained)
    X = predictor.features(records(predictor))
    with torch.no_grad():
        as_network[0].network.bias.fill_(np.nan)
    with pytest.raises(BundleError, match=f"{predictor.spec.name}: of {len(X)} of {len(X)} records .* no number"):
        predictor.risk(X)


def test_a_network_that_a_cards_memory_never_takes_is_computed_on_the_cpu_and_it_is_said(trained, as_network):
    predictor = Predictor(trained)
    predictor.use(card(budget=4))
    assert predictor.computed["device"] == "cpu"
    assert "its weights and its smallest batch take" in predictor.computed["why"]


def test_on_the_cpu_a_network_has_the_same_bits_on_the_device_as_alone(trained, as_network):
    predictor = Predictor(asks_for(trained, "bf16", 0.01))
    X = predictor.features(records(predictor))
    alone = predictor.risk(X)
    ignored = Watcher(lambda *_: None, lambda *_: None)

    predictor.use(Device(torch.device("cpu"), HostMemory(), None, ignored, exact=True))

    assert predictor.risk(X).tobytes() == alone.tobytes()
    assert predictor.computed == {"device": "cpu", "precision": "float32", "why": None}
